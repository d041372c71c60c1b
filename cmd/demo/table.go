package main

import (
	"fmt"
	"io"
	"time"
)

// unacknowledged tells how many messages the sources have not got a PUBACK for.
func (w *world) unacknowledged() (n int) {
	for _, c := range w.clients {
		n += c.Unacked()
	}
	return n
}

// table writes the account and returns how many acknowledged messages did not
// arrive.
func (w *world) table(out io.Writer) (lost int) {
	sum := w.ledger.Sum()
	lost, some := w.ledger.Lost()
	drained := "not at all"
	if w.drained > 0 {
		drained = seconds(w.drained)
	}
	rows := [][2]string{
		{"acknowledged by the gateway", count(sum.Acked)},
		{"arrived in the cloud", count(sum.Arrived)},
		{"lost", count(lost)},
		{"duplicates", count(sum.Duplicates)},
		{"out of order", count(sum.Disorder)},
		{"longest gap between arrivals", seconds(sum.LongestGap)},
		{"backlog when the uplink came back", count(w.backlog)},
		{"time to drain it", drained},
		{"restart after the SIGKILL", fmt.Sprintf("%d ms", w.restart.Milliseconds())},
		{"store at its peak", size(w.storePeak)},
		{"store at the end", size(w.storeEnd)},
		{fmt.Sprintf("written to disk in %v with uplink", w.normal), size(w.wroteNormal)},
		{fmt.Sprintf("written to disk in %v without", w.outage/2), size(w.wroteOutage)},
	}
	fmt.Fprintln(out)
	for _, r := range rows {
		fmt.Fprintf(out, "  %-38s %12s\n", r[0], r[1])
	}
	fmt.Fprintln(out)
	switch {
	case sum.Acked == 0:
		fmt.Fprintln(out, "Nothing was acknowledged: this proves nothing.")
		return 1
	case lost > 0:
		fmt.Fprintf(out, "LOST although acknowledged: %s\n", some)
	default:
		fmt.Fprintln(out, "Everything that was acknowledged arrived.")
	}
	return lost
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
