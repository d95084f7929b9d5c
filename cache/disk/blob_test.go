package disk

import (
	_ "crypto/sha512"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestBlobStaysWithinTheDataDirectory puts other things where a blob would be than a file.
func TestBlobStaysWithinTheDataDirectory(t *testing.T) {
	outside := t.TempDir()
	d := digest.FromString("secret")
	if err := os.WriteFile(filepath.Join(outside, d.Encoded()), []byte("secret"), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, arrange := range map[string]func(path string) error{
		"link to a file": func(path string) error { return os.Symlink(filepath.Join(outside, d.Encoded()), path) },
		"link to a directory": func(path string) error {
			return errors.Join(os.Remove(filepath.Dir(path)), os.Symlink(outside, filepath.Dir(path)))
		},
		"directory": func(path string) error { return os.Mkdir(path, 0o750) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, Options{Dir: dir})
			path := filepath.Join(dir, blobPath(d))
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), arrange(path)); err != nil {
				t.Fatal(err)
			}
			if f, err := s.Blob(d); err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v, %v", f, err)
			}
		})
	}
}

func TestClosedStoreOpensNothing(t *testing.T) {
	s := open(t, Options{})
	d := put(t, s, "content")
	s.Close()
	if _, err := s.Blob(d); !errors.Is(err, os.ErrClosed) || s.Has(d) {
		t.Errorf("%v", err)
	}
}

func TestValidate(t *testing.T) {
	hex := strings.Repeat("0af9", 16)
	for d, want := range map[digest.Digest]bool{
		digest.Digest("sha256:" + hex):            true,
		digest.Digest("sha512:" + hex + hex):      true,
		digest.Digest("sha256:" + hex + "0"):      false,
		digest.Digest("sha256:" + hex[1:]):        false,
		digest.Digest("sha256:" + hex[1:] + "A"):  false,
		digest.Digest("sha256:" + hex[1:] + "/"):  false,
		digest.Digest("sha256:" + hex[1:] + "\n"): false,
		digest.Digest("sha255:" + hex):            false,
		digest.Digest(hex):                        false,
		"":                                        false,
	} {
		if err := validate(d); (err == nil) != want || (d.Validate() == nil) != want {
			t.Errorf("%q: %v", d, err)
		}
	}
}
