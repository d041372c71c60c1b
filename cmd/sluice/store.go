package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/persist/bolt"
)

// storeCmd is `sluice store`.
type storeCmd struct {
	Inspect storeInspectCmd `cmd:"" help:"Show what is in the store of a stopped broker."`
	Check   storeCheckCmd   `cmd:"" help:"Read all of a stopped broker's store, and say what is wrong with it: exit status 0 if nothing is, 1 otherwise."`
	Dump    storeDumpCmd    `cmd:"" help:"Print every record of a stopped broker's store, one JSON object a line."`
	Repair  storeRepairCmd  `cmd:"" help:"Copy what can be read of a stopped broker's store, damaged or not, into a new file."`
	Compact storeCompactCmd `cmd:"" help:"Make the file of a stopped broker's store as small as it can be."`
	Backup  storeBackupCmd  `cmd:"" help:"Copy the store of a running broker into a file, while the broker goes on."`
}

// stoppedStore names the store of a broker that is not running.
type stoppedStore struct {
	target
	Path string `arg:"" optional:"" type:"path" help:"The store's file or directory, instead of that of the configuration."`
}

// file is the path for package bolt.
func (s *stoppedStore) file() (string, error) {
	if s.Path != "" {
		return s.Path, nil
	}
	return s.dir()
}

// print prints v as JSON if that is asked for, otherwise by text.
func (t *target) print(c *console, v any, text func(w io.Writer)) error {
	if !t.JSON {
		text(c.out)
		return nil
	}
	e := json.NewEncoder(c.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

type storeInspectCmd struct{ stoppedStore }

// Run prints an overview.
func (s *storeInspectCmd) Run(c *console) error {
	path, err := s.file()
	if err != nil {
		return err
	}
	in, err := bolt.Inspect(path)
	if err != nil {
		return hint(err, path)
	}
	return s.print(c, in, func(w io.Writer) {
		ended := "the broker stopped in order"
		if !in.Clean {
			ended = "the broker was killed or lost power"
		}
		fmt.Fprintf(w, "%s\nformat %d, opened %d times, %s\n", in.Path, in.Schema, in.Boot, ended)
		fmt.Fprintf(w, "file      %s, %s of it in use\n", size(in.FileBytes), size(in.UsedBytes))
		fmt.Fprintf(w, "queued    %d messages, %s\n", in.QueuedMessages, size(in.QueuedBytes))
		fmt.Fprintf(w, "retained  %d messages, %s\n", in.RetainedMessages, size(in.RetainedBytes))
		if in.DamagedRecords > 0 {
			fmt.Fprintf(w, "damaged   %d records: see 'sluice store check'\n", in.DamagedRecords)
		}
		fmt.Fprintf(w, "sessions  %d\n", len(in.Sessions))
		for i := range in.Sessions {
			x := &in.Sessions[i]
			lane := ""
			if x.Priority {
				lane = ", priority"
			}
			fmt.Fprintf(w, "  %q%s: %d messages (%s), %d subscriptions\n", x.ClientID, lane, x.Messages, size(x.Bytes), x.Subscriptions)
		}
	})
}

// hint adds to an error what helps.
func hint(err error, path string) error {
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w; 'sluice store backup' copies the store of a running broker", err)
	}
	if bolt.IsDamaged(err) {
		return fmt.Errorf("%w\n'sluice store check' says what is wrong, 'sluice store repair --to NEW.db %s' copies what can be read", err, path)
	}
	return err
}

type storeCheckCmd struct{ stoppedStore }

// Run checks the store.
func (s *storeCheckCmd) Run(c *console) error {
	path, err := s.file()
	if err != nil {
		return err
	}
	r, err := bolt.Check(path)
	if err != nil {
		return hint(err, path)
	}
	err = s.print(c, r, func(w io.Writer) {
		if r.Sound {
			fmt.Fprintf(w, "%s: sound, %d records\n", r.Path, r.Records)
			return
		}
		for _, p := range r.Problems {
			fmt.Fprintf(w, "%s: %s\n", r.Path, p)
		}
		if r.More > 0 {
			fmt.Fprintf(w, "%s: and %d more\n", r.Path, r.More)
		}
	})
	if err == nil && !r.Sound {
		err = exitStatus(exitFailure)
	}
	return err
}

type storeDumpCmd struct{ stoppedStore }

// Run prints all records.
func (s *storeDumpCmd) Run(c *console) error {
	path, err := s.file()
	if err != nil {
		return err
	}
	e := json.NewEncoder(c.out)
	return hint(bolt.Dump(path, func(r *bolt.Record) error { return e.Encode(r) }), path)
}

type storeRepairCmd struct {
	stoppedStore
	To string `required:"" type:"path" placeholder:"NEW.db" help:"The new file, which must not be there yet."`
}

// Help says what to do with the new file.
func (*storeRepairCmd) Help() string {
	return "The store itself is not changed. To use the new file, move the old one away and the new one to its place, such as /var/lib/sluice/sluice.db. " +
		"A broker does the same by itself when it finds its store damaged, and keeps the old file beside it."
}

// Run copies what can be read.
func (s *storeRepairCmd) Run(c *console) error {
	path, err := s.file()
	if err != nil {
		return err
	}
	r, err := bolt.Repair(path, s.To)
	if err != nil {
		return hint(err, path)
	}
	return s.print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d sessions, %d subscriptions, %d messages, %d retained, %d wills\n", s.To, r.Sessions, r.Subscriptions, r.Messages, r.Retained, r.Wills)
		if r.BadPages+r.BadRecords > 0 {
			fmt.Fprintf(w, "lost: %d pages with all that only they lead to, %d records\n", r.BadPages, r.BadRecords)
		}
		if r.OlderMeta {
			fmt.Fprintln(w, "the last transaction is missing")
		}
	})
}

type storeCompactCmd struct{ stoppedStore }

// Run compacts the store.
func (s *storeCompactCmd) Run(c *console) error {
	path, err := s.file()
	if err != nil {
		return err
	}
	r, err := bolt.Compact(path)
	if err != nil {
		return hint(err, path)
	}
	return s.print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s before, %s after\n", r.Path, size(r.BytesBefore), size(r.BytesAfter))
	})
}

type storeBackupCmd struct {
	target
	File string `arg:"" type:"path" help:"Where to. It must not be there yet."`
}

// Help says how to use a backup.
func (*storeBackupCmd) Help() string {
	return "FILE is the store as of one commit: every message that was acknowledged before is in it. To restore it, stop the broker and put it in the place of sluice.db in the data directory. " +
		"Messages that were delivered after the backup are then delivered again. Exit status 3 if no broker runs: copy its file instead."
}

// backupReport is what `sluice store backup --json` prints.
type backupReport struct {
	Path   string `json:"path"`
	Bytes  int64  `json:"bytes"`
	Commit string `json:"commit"`
}

// Run copies the store of the running broker.
func (s *storeBackupCmd) Run(c *console) error {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	if _, err := os.Lstat(s.File); err == nil {
		return fmt.Errorf("%s exists", s.File)
	}
	r, err := ask(dir, "/api/v1/store/backup")
	if errors.Is(err, errNobody) {
		fmt.Fprintf(c.err, "sluice: %v: copy %s instead\n", err, filepath.Join(dir, "sluice.db"))
		return exitStatus(exitNobody)
	}
	if err != nil {
		return err
	}
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(r.Body, 1000))
		return fmt.Errorf("the broker answers %s: %s", r.Status, text)
	}
	n, err := save(s.File, r.Body)
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	report := backupReport{s.File, n, r.Trailer.Get("Sluice-Commit")}
	return s.print(c, report, func(w io.Writer) { fmt.Fprintf(w, "%s: %s, as of commit %s\n", s.File, size(n), report.Commit) })
}

// save writes a file that is there as a whole, on the disk, or not at all.
func save(path string, from io.Reader) (n int64, err error) {
	partial := path + ".partial"
	f, err := os.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial)
		}
	}()
	n, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return n, err
	}
	return n, os.Rename(partial, path)
}
