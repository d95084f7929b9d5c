package policy

import (
	"runtime"
	"testing"
	"unsafe"

	"github.com/opencontainers/go-digest"
)

const million = 1_000_000

// filled is a policy of a million, and some of the digests in it.
func filled() (*Policy, []digest.Digest) {
	p, some := New(), make([]digest.Digest, 0, 1<<14)
	for i := range million {
		d := numbered(i)
		p.Add(d, large)
		if i%61 == 0 && len(some) < cap(some) {
			some = append(some, d)
		}
	}
	return p, some
}

func BenchmarkTouch(b *testing.B) {
	p, some := filled()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Touch(some[i%len(some)])
	}
}

func BenchmarkHas(b *testing.B) {
	p, some := filled()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Has(some[i%len(some)])
	}
}

// BenchmarkReplace is what a full cache does with each new blob.
func BenchmarkReplace(b *testing.B) {
	p, _ := filled()
	fresh := make([]digest.Digest, 1<<14)
	for i := range fresh {
		fresh[i] = numbered(million + i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Add(fresh[i%len(fresh)], large)
		p.TakeVictim()
	}
}

// BenchmarkFill tells what a million costs, in time and in bytes for each.
func BenchmarkFill(b *testing.B) {
	digests := make([]digest.Digest, million)
	for i := range digests {
		digests[i] = numbered(i)
	}
	for b.Loop() {
		before := heap()
		p := New()
		for _, d := range digests {
			p.Add(d, large)
		}
		nodes := len(p.nodes) * chunk * int(unsafe.Sizeof(node{}))
		b.ReportMetric(float64(heap()-before)/million, "heap-B/blob")
		b.ReportMetric(float64(nodes)/million, "node-B/blob")
		runtime.KeepAlive(p)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
