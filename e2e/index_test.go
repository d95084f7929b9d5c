package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIndexOutlivesAFullFileSystem has a process write records all the time while another takes all of the file system that it
// is on, down to the last byte, and gives it back. It lives, and writes again when there is room.
//
// Records go where blocks have been taken for them, so it does not matter how fast the file system fills while the log has room
// ("at once"). When tables are written too, which needs some room to be there for milliseconds, it fills at the pace of a disk.
func TestIndexOutlivesAFullFileSystem(t *testing.T) {
	needRoot(t)
	program := indexTests(t)
	for name, c := range map[string]struct {
		size   int64 // bytes of the file system
		pace   int64 // bytes that are taken in a millisecond; 0: all at once
		life   int   // rounds after which the writing process is exchanged, before its log is full; 0: never
		rounds int
	}{
		"at once":          {size: 64 << 20, life: 1, rounds: 25},
		"while it rotates": {size: 512 << 20, pace: 100 << 10, rounds: 15},
	} {
		t.Run(name, func(t *testing.T) {
			dir := mountTmpfs(t, c.size)
			rnd := rand.New(rand.NewPCG(1, uint64(c.size)))
			w := startIndexWriter(t, program, dir)
			for round := range c.rounds {
				if c.life > 0 && round%c.life == 0 && round > 0 {
					w.stop(t)
					w = startIndexWriter(t, program, dir)
				}
				written, _ := w.report(t)
				w.await(t, "records are written", func(now, _ int64) bool { return now > written+int64(rnd.IntN(2000)) })
				filler := filepath.Join(dir, "filler")
				fill(t, filler, c.pace)
				_, refused := w.report(t)
				w.await(t, "records are refused", func(_, now int64) bool { return now > refused })
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				written, _ = w.report(t)
				w.await(t, "records are written again", func(now, _ int64) bool { return now > written })
			}
			w.stop(t)
			if tables, _ := filepath.Glob(filepath.Join(dir, "index", "*.sst")); len(tables) == 0 {
				t.Error("no table was written")
			}
		})
	}
}

func mountTmpfs(t *testing.T, size int64) string {
	t.Helper()
	dir := workDir(t, "tmpfs")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fill takes all that is left of a file system, at a pace if it isn't 0: the last of it that slowly.
func fill(t *testing.T, path string, pace int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	take := func(n int64) bool {
		err := unix.Fallocate(int(f.Fd()), 0, size, n)
		if err != nil && !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		if err == nil {
			size += n
		}
		return err == nil
	}
	if pace > 0 {
		take(max(0, int64(st.Bavail)*st.Bsize-64<<20))
		for tick := time.NewTicker(time.Millisecond); take(pace); {
			<-tick.C
		}
	}
	for n := int64(64 << 20); n >= 4096; n /= 2 {
		for take(n) {
		}
	}
}

// indexWriter is a process that writes to an index all the time.
type indexWriter struct {
	cmd    *exec.Cmd
	asks   io.WriteCloser
	tells  *bufio.Reader
	cancel context.CancelFunc
}

func startIndexWriter(t *testing.T, program, dir string) *indexWriter {
	t.Helper()
	ctx, cancel := context.WithCancel(running)
	w := &indexWriter{cmd: exec.CommandContext(ctx, program), cancel: cancel}
	t.Cleanup(cancel)
	w.cmd.Env = append(os.Environ(), "ENTREPOT_TEST_WRITE="+filepath.Join(dir, "index"))
	w.cmd.Stderr = os.Stderr
	var err error
	if w.asks, err = w.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	w.tells = bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return w
}

// report asks how many records were written and refused.
func (w *indexWriter) report(t *testing.T) (written, refused int64) {
	t.Helper()
	var temporary bool
	_, err := fmt.Fprintln(w.asks)
	if err == nil {
		_, err = fmt.Fscanln(w.tells, &written, &refused, &temporary)
	}
	if err != nil {
		t.Fatalf("the process that writes died: %v, %v", err, w.cmd.Wait())
	}
	return written, refused
}

func (w *indexWriter) await(t *testing.T, what string, is func(written, refused int64) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(w.report(t)); {
		if time.Now().After(end) {
			t.Fatalf("it never happened that %s", what)
		}
		<-time.After(time.Millisecond) // another process: there is no event to wait for
	}
}

func (w *indexWriter) stop(t *testing.T) {
	t.Helper()
	w.asks.Close()
	if err := w.cmd.Wait(); err != nil {
		t.Fatalf("the process that writes: %v", err)
	}
}

// indexTests is the program of package index's own tests, which has that process in it.
func indexTests(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "index.test")
	cmd := exec.CommandContext(running, "go", "test", "-c", "-o", program, "./cache/index")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}
