package watched_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream/watched"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// age makes a file as old as one that nobody has written to for long.
func age(t *testing.T, path string, at time.Time) {
	t.Helper()
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestChangesAreSeen(t *testing.T) {
	old := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"written over", func(t *testing.T, dir string) { write(t, dir+"/file", "new") }, "new"},
		{"of the same size, renamed", func(t *testing.T, dir string) {
			write(t, dir+"/tmp", "newer")
			age(t, dir+"/tmp", old)
			os.Rename(dir+"/tmp", dir+"/file")
		}, "newer"},
		{"the link turned as Kubernetes does", func(t *testing.T, dir string) {
			os.Symlink("v2", dir+"/..tmp")
			os.Rename(dir+"/..tmp", dir+"/..data")
		}, "from 2"},
		{"emptied", func(t *testing.T, dir string) { write(t, dir+"/file", "") }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := dir + "/file"
			write(t, path, "older")
			if strings.Contains(tt.name, "link") {
				for _, v := range []string{"1", "2"} {
					os.Mkdir(dir+"/v"+v, 0o700)
					write(t, dir+"/v"+v+"/file", "from "+v)
					age(t, dir+"/v"+v+"/file", old)
				}
				os.Symlink("v1", dir+"/..data")
				path = dir + "/..data/file"
			} else {
				age(t, path, old)
			}
			f := watched.New(path, 10)
			_, before, err := f.Read()
			if err != nil {
				t.Fatal(err)
			}
			tt.change(t, dir)
			content, after, err := f.Read()
			if err != nil || string(content) != tt.want || after == before {
				t.Errorf("%q, version %d after %d, %v", content, after, before, err)
			}
			if _, again, _ := f.Read(); again != after {
				t.Errorf("version %d after %d without a change", again, after)
			}
		})
	}
}

func TestWrittenTwiceWithinOneTickIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f := watched.New(path, 10)
	now := time.Now()
	for _, text := range []string{"one", "two"} {
		write(t, path, text)
		age(t, path, now)
		if content, _, err := f.Read(); err != nil || string(content) != text {
			t.Errorf("%q, %v", content, err)
		}
	}
}

func TestWhatIsNotThereIsAnErrorAndComesBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	f := watched.New(path, 10)
	versions := map[int]bool{}
	read := func(step, want, reason string) {
		t.Helper()
		content, version, err := f.Read()
		if string(content) != want || (err == nil) != (reason == "") || err != nil && !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %q, %v", step, content, err)
		}
		versions[version] = true
	}
	read("missing", "", "no such file")
	read("still missing", "", "no such file")
	write(t, path, "text")
	read("written", "text", "")
	write(t, path, "much longer than the limit")
	read("too large", "", "larger than 10 bytes")
	os.Remove(path)
	os.Mkdir(path, 0o700)
	read("a directory", "", "not a regular file")
	os.Remove(path)
	write(t, path, "text")
	read("back", "text", "")
	if len(versions) != 4 || versions[0] {
		t.Errorf("versions %v", versions)
	}
}
