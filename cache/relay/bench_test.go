package relay

import (
	"fmt"
	"io"
	"sync"
	"testing"
)

// BenchmarkShared relays 256 MiB at once to so many readers; the bytes are those that all of them get.
func BenchmarkShared(b *testing.B) {
	content, d := random(256 << 20)
	for _, n := range []int{1, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := New(Options{})
			defer s.Close()
			src := &source{content: content, size: int64(len(content))}
			b.SetBytes(int64(n * len(content)))
			b.ReportAllocs()
			for b.Loop() {
				var readers []*Reader
				for range n {
					r, _, err := s.Join(b.Context(), d, src, whole)
					if err != nil {
						b.Fatal(err)
					}
					readers = append(readers, r)
				}
				var wg sync.WaitGroup
				for _, r := range readers {
					wg.Go(func() {
						defer r.Close()
						if n, err := io.Copy(io.Discard, r); n != int64(len(content)) || err != nil {
							b.Error(n, err)
						}
					})
				}
				wg.Wait()
			}
			b.ReportMetric(float64(len(src.requests()))/float64(b.N), "requests/op")
		})
	}
}
