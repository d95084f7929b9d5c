package bandwidth

import "testing"

// ample is a limit that nobody reaches here, in bytes a second: what is left is what taking turns costs.
const ample = 1 << 50

func BenchmarkReader(b *testing.B) {
	r := New(ample).Reader(b.Context(), &endless{})
	p := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(p); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReadersOfOneLine has as many readers share a limit as there are processors.
func BenchmarkReadersOfOneLine(b *testing.B) {
	limit := New(ample)
	b.SetBytes(chunk)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		r, p := limit.Reader(b.Context(), &endless{}), make([]byte, chunk)
		for pb.Next() {
			if _, err := r.Read(p); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkReaderWithoutALimit(b *testing.B) {
	r := New(0).Reader(b.Context(), &endless{})
	p := make([]byte, chunk)
	b.SetBytes(chunk)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(p); err != nil {
			b.Fatal(err)
		}
	}
}
