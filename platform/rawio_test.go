package platform

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The pairs of benchmarks below are the measurement that the DESIGN note of rawio.go cites.

func benchmarkBytes(b *testing.B, size int, write, read func(fd int, p []byte) (int, error)) {
	x, y := pair(b)
	defer unix.Close(x)
	defer unix.Close(y)
	out, in := make([]byte, size), make([]byte, size)
	b.ReportAllocs()
	for b.Loop() {
		write(x, out)
		read(y, in)
	}
}

func BenchmarkRaw64(b *testing.B)      { benchmarkBytes(b, 64, Write, Read) }
func BenchmarkSyscall64(b *testing.B)  { benchmarkBytes(b, 64, unix.Write, unix.Read) }
func BenchmarkRaw4096(b *testing.B)    { benchmarkBytes(b, 4096, Write, Read) }
func BenchmarkSyscall4K(b *testing.B)  { benchmarkBytes(b, 4096, unix.Write, unix.Read) }
func BenchmarkRawEpoll(b *testing.B)   { benchmarkPoll(b, epollPoll) }
func BenchmarkEpollWait0(b *testing.B) { benchmarkPoll(b, epollWaitZero) }

func epollWaitZero(epfd int, events []unix.EpollEvent) (int, error) {
	return unix.EpollWait(epfd, events, 0)
}

func benchmarkPoll(b *testing.B, poll func(epfd int, events []unix.EpollEvent) (int, error)) {
	p := newPoller(b)
	for b.Loop() {
		poll(p.epfd, p.events[:])
	}
}
