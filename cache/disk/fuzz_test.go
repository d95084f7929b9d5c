package disk

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

func FuzzBound(f *testing.F) {
	for _, seed := range []string{"", "0\n", "4096\n", "-1", "1e9", "9223372036854775807", " 7 \n"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		bound := parseBound(b)
		if bound < -1 || bound >= unbounded {
			t.Fatalf("%q: %d", b, bound)
		}
		if bound >= 0 && parseBound(fmt.Appendln(nil, bound)) != bound {
			t.Fatalf("%q: %d is not what was written", b, bound)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(header{boot(), 1, 7, true}.String())
	f.Add("boot 1 2")
	f.Add("boot -1 9223372036854775807 false")
	f.Fuzz(func(t *testing.T, line string) {
		h, err := parseHeader(line)
		if err != nil {
			return
		}
		if again, err := parseHeader(h.String()); err != nil || again != h {
			t.Fatalf("%q: %v, %v, %v", line, h, again, err)
		}
	})
}

// FuzzNames has files of any name in the two directories that are listed, with anything in them.
func FuzzNames(f *testing.F) {
	d := digest.FromString("content")
	for _, name := range []string{"sha256-" + d.Encoded(), "sha256-", "-", "put-1", d.Encoded(), "sha512-" + d.Encoded(), "SHA256-x"} {
		f.Add(name, header{boot(), 1, 7, true}.String()+"\nstate", "content")
		f.Add(name, "", "")
	}
	f.Fuzz(func(t *testing.T, name, state, content string) {
		if name != filepath.Base(name) || name == "/" || len(name) > 200 || strings.Contains(name, "\x00") || name == "." || name == ".." {
			return
		}
		dir := t.TempDir()
		blobs := filepath.Join(dir, "blobs", "sha256", (name + "00")[:2])
		for path, content := range map[string]string{
			filepath.Join(dir, "partial", name): content, filepath.Join(dir, "partial", name+stateSuffix): state,
			filepath.Join(blobs, name): content,
		} {
			_ = os.MkdirAll(filepath.Dir(path), 0o750) // of some names there is no directory
			_ = os.WriteFile(path, []byte(content), 0o640)
		}
		s := open(t, Options{Dir: dir, MaxSize: 1 << 20})
		found, err := scan(t, s)
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, e := range found {
			sum += blocks(e.Size)
		}
		for d := range s.parkings {
			if p, _, _, ok := s.Parked(d); ok {
				p.Discard()
				p.Close()
			}
		}
		if s.Used() != sum || s.DropOldestParked() {
			t.Errorf("%d bytes are used, %d found", s.Used(), sum)
		}
		s.Close()
	})
}
