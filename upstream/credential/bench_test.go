package credential

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkGet is what every request with a name and a password pays.
func BenchmarkGet(b *testing.B) {
	path := filepath.Join(b.TempDir(), "password")
	if err := os.WriteFile(path, []byte("hunter2"), 0o600); err != nil {
		b.Fatal(err)
	}
	old := time.Now().Add(-time.Hour) // a file that has just been written is read each time
	if err := os.Chtimes(path, old, old); err != nil {
		b.Fatal(err)
	}
	sources := map[string]Source{"file": File("ci", path), "program": Exec([]string{"cat", path}, "ci", 0)}
	for name, s := range sources {
		defer s.(Worker).Close()
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Get(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
