package disk

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

func benchStore(b *testing.B) (*Store, digest.Digest) {
	s, err := Open(b.Context(), Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	d := digest.FromString("content")
	if err := s.Put(d, []byte("content")); err != nil {
		b.Fatal(err)
	}
	return s, d
}

func BenchmarkBlob(b *testing.B) {
	s, d := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		f, err := s.Blob(d)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkNoBlob(b *testing.B) {
	s, _ := benchStore(b)
	none := digest.FromString("none")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Blob(none); err == nil {
			b.Fatal("it is there")
		}
	}
}

func BenchmarkHas(b *testing.B) {
	s, d := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		if !s.Has(d) {
			b.Fatal("it is not there")
		}
	}
}
