package bolt

import (
	"os"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
)

// DESIGN. A tap sits between bbolt and its file. bbolt has no door for that, so
// the test takes its unexported fields. What it writes passes through the tap;
// what it syncs cannot be seen, but for this: a sync of a descriptor that
// cannot be synced fails. TestSyncsAreThere uses that to prove that a commit
// syncs once between the data and the meta page, and once after it; the tap
// then takes it for granted.

// tap sees the writes to one file.
type tap struct {
	mu    sync.Mutex
	db    *bbolt.DB
	file  *os.File
	write func(b []byte, off int64) (int, error)

	onWrite func(b []byte, off int64) error // nil: passes; an error: is not written
	wrote   int64
}

func field(db *bbolt.DB, names ...string) reflect.Value {
	v := reflect.ValueOf(db).Elem()
	for _, n := range names {
		v = v.FieldByName(n)
	}
	return reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
}

// put puts the tap into db.
func (p *tap) put(db *bbolt.DB) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.db = db
	p.file = field(db, "file").Interface().(*os.File)
	w := field(db, "ops", "writeAt")
	p.write = w.Interface().(func([]byte, int64) (int, error))
	w.Set(reflect.ValueOf(p.writeAt))
}

func (p *tap) writeAt(b []byte, off int64) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.onWrite != nil {
		if err := p.onWrite(b, off); err != nil {
			return 0, err
		}
	}
	p.wrote += int64(len(b))
	return p.write(b, off)
}

func (p *tap) bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.wrote
}

// unsyncable makes every sync of the file fail until the result is called.
func (p *tap) unsyncable(t *testing.T) (undo func()) {
	t.Helper()
	fd := int(p.file.Fd())
	saved, err := syscall.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	var pipe [2]int
	if err := syscall.Pipe(pipe[:]); err != nil {
		t.Fatal(err)
	}
	if err := dup3(pipe[1], fd); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := dup3(saved, fd); err != nil {
			t.Error(err)
		}
		syscall.Close(saved)
		syscall.Close(pipe[0])
		syscall.Close(pipe[1])
	}
}

func dup3(from, to int) error { return syscall.Dup3(from, to, syscall.O_CLOEXEC) }

// A commit syncs after the data and before the meta page, and after that.
func TestSyncsAreThere(t *testing.T) {
	for _, noSync := range []bool{false, true} {
		for _, atMeta := range []bool{false, true} {
			var p tap
			db, err := bbolt.Open(t.TempDir()+"/x", 0o600, &bbolt.Options{NoFreelistSync: true, PageSize: pageBytes})
			if err != nil {
				t.Fatal(err)
			}
			p.put(db)
			db.NoSync = noSync
			var undo func()
			metas := 0
			p.onWrite = func(b []byte, off int64) error {
				meta := off < 2*pageBytes
				if meta {
					metas++
				}
				if meta == atMeta && undo == nil {
					if _, err := p.write(b, off); err != nil {
						t.Error(err)
					}
					undo = p.unsyncable(t)
					p.write = func(b []byte, _ int64) (int, error) { return len(b), nil }
				}
				return nil
			}
			err = db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("b")); return err })
			undo()
			if (err == nil) != noSync {
				t.Fatalf("no sync %v, descriptor lost at the meta page %v: %v", noSync, atMeta, err)
			}
			if want := atMeta || noSync; (metas == 1) != want {
				t.Fatalf("%d meta pages written; no sync %v, lost at the meta page %v", metas, noSync, atMeta)
			}
			db.Close()
		}
	}
}
