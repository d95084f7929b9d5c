package index

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
)

// TestMain runs the tests, or what one of them has a process of its own for: in it the environment names the directory.
func TestMain(m *testing.M) {
	for name, main := range map[string]func(dir string) error{
		"ENTREPOT_TEST_USE": use, "ENTREPOT_TEST_WRITE": writeOn, "ENTREPOT_TEST_CLOSE": closeOn,
	} {
		if dir := os.Getenv(name); dir != "" {
			if err := main(dir); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
	}
	goleak.VerifyTestMain(m)
}

// known is how many tags the indexes of these tests know.
const known = 500

func knownTag(i int) (tag string, rec Tag) {
	return fmt.Sprint(i), Tag{Checked: time.Unix(int64(i), 0), Changed: time.Unix(0, 0),
		Manifest: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromString(fmt.Sprint(i)), Size: int64(i)}}
}

// learn writes what is known, from one tag up to another.
func learn(x *Index, from, to int) error {
	for i := from; i < to; i++ {
		tag, rec := knownTag(i)
		if err := x.SetTag(repo, tag, rec); err != nil {
			return err
		}
		if err := x.Confirm(repo, rec.Manifest.Digest, Member{MediaType: rec.Manifest.MediaType, Size: rec.Manifest.Size}); err != nil {
			return err
		}
	}
	return nil
}

// recall reads what is known, and fails on what is wrong.
func recall(x *Index) (found int, err error) {
	for i := range known {
		tag, want := knownTag(i)
		got, ok := x.Tag(repo, tag)
		if !ok {
			continue
		}
		if !got.Checked.Equal(want.Checked) || got.Manifest.Digest != want.Manifest.Digest || got.Manifest.Size != want.Manifest.Size {
			return 0, fmt.Errorf("tag %s is %v", tag, got)
		}
		found++
	}
	return found, nil
}

// use does all with an index that its users do, and says how many tags it knew.
func use(dir string) error {
	x, err := Open(Options{Dir: dir})
	if err != nil {
		return err
	}
	before, err := recall(x)
	if err != nil {
		return err
	}
	_ = x.Tags(func(Repository, string, Tag) bool { return true })
	_ = x.Sweep(context.Background(), time.Now(), func(digest.Digest) bool { return true })
	x.tables.Lock()
	x.compactLocked(1)
	x.tables.Unlock()
	if err := learn(x, 0, known); err != nil {
		return err
	}
	after, err := recall(x)
	if err != nil {
		return err
	}
	if x.Temporary() {
		return fmt.Errorf("it is in memory")
	}
	fmt.Printf("knew %d, knows %d, begun %q\n", before, after, x.Begun())
	return x.Close()
}

// useIn is use in another process, which Badger may end.
func useIn(t *testing.T, dir string) (before, after int, begun string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ENTREPOT_TEST_USE="+dir, "GORACE=atexit_sleep_ms=0") // which is a second otherwise
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err == nil {
		_, err = fmt.Sscanf(string(out), "knew %d, knows %d, begun %q", &before, &after, &begun)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.Bytes())
	}
	return before, after, begun
}

// leftByKill makes what a kill leaves: tables, and a log with newer records.
func leftByKill(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	if err := learn(x, 0, known/2); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = openIndex(t, dir)
	if err := learn(x, known/2, known); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(t.TempDir(), "left")
	if err := os.CopyFS(left, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return left
}

// TestDamageIsNoHarm damages each file of an index in each way. Its user lives, reads nothing that is wrong, and the next one
// knows all that this one has learnt.
func TestDamageIsNoHarm(t *testing.T) {
	left := leftByKill(t)
	noise := func(n int) []byte {
		rnd := rand.New(rand.NewPCG(1, uint64(n))) // each its own: they run side by side
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	overwrite := func(path string, b []byte, at int64) error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt(b, at)
		return err
	}
	ways := map[string]func(path string, size int64) error{
		"nothing": func(string, int64) error { return nil },
		"noise":   func(path string, size int64) error { return os.WriteFile(path, noise(int(min(size, 1<<20))), 0o600) },
		"noise at the start": func(path string, size int64) error {
			return overwrite(path, noise(100), 0)
		},
		"noise in the middle": func(path string, size int64) error {
			return overwrite(path, noise(20_000), min(size/2, 200_000))
		},
		"noise at the end": func(path string, size int64) error {
			return overwrite(path, noise(50), max(0, size-50))
		},
		"noise behind it": func(path string, size int64) error { return overwrite(path, noise(100), size) },
		"half of it":      func(path string, size int64) error { return os.Truncate(path, min(size/2, 100_000)) },
		"no bytes":        func(path string, _ int64) error { return os.Truncate(path, 0) },
		"deleted":         func(path string, _ int64) error { return os.RemoveAll(path) },
		"a directory":     func(path string, _ int64) error { return errorOf(os.RemoveAll(path), os.Mkdir(path, 0o700)) },
		"no permission":   func(path string, _ int64) error { return os.Chmod(path, 0) },
	}
	entries, err := os.ReadDir(left)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() == lockName {
			continue
		}
		for how, damage := range ways {
			if useless := e.Name() == "DISCARD" || filepath.Ext(e.Name()) == ".vlog"; useless && how != "noise" {
				continue // they are removed, however they are
			}
			t.Run(e.Name()+"/"+strings.ReplaceAll(how, " ", "-"), func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "index")
				if err := os.CopyFS(dir, os.DirFS(left)); err != nil {
					t.Fatal(err)
				}
				info, err := e.Info()
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(filepath.Join(dir, e.Name()), info.Size()); err != nil {
					t.Fatal(err)
				}
				before, after, begun := useIn(t, dir)
				if how == "nothing" && before != known || begun == "damaged" && before > 0 {
					t.Errorf("%q: it knew %d of %d", begun, before, known)
				}
				again, andThen, begunAgain := useIn(t, dir)
				rotten := begun != "damaged" && begunAgain == "damaged" // it is begun anew by the next who opens it
				if after != known || andThen != known || again != known && !rotten {
					t.Errorf("%q: it knew %d, then %d; the next one %d, %q", begun, before, after, again, begunAgain)
				}
				if !rotten {
					return
				}
				if last, _, begun := useIn(t, dir); last != known || begun != "" {
					t.Errorf("in the end it knew %d, %q", last, begun)
				}
			})
		}
	}
}

func errorOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
