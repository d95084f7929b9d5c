package index

import (
	"fmt"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func benchIndex(b *testing.B) *Index {
	x, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { x.Close() })
	warm(b, x)
	b.ReportAllocs()
	return x
}

func BenchmarkTagHit(b *testing.B) {
	x := benchIndex(b)
	for b.Loop() {
		x.Tag(repo, "7")
	}
}

func BenchmarkMemberHit(b *testing.B) {
	x := benchIndex(b)
	for b.Loop() {
		x.Member(repo, d1)
	}
}

func BenchmarkMemberHitContended(b *testing.B) {
	x := benchIndex(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			x.Member(repo, d1)
		}
	})
}

func BenchmarkShownHit(b *testing.B) {
	x := benchIndex(b)
	for b.Loop() {
		x.Shown(repo.Registry, d1)
	}
}

// BenchmarkMemberFromBadger reads more records in turn than are kept decoded.
func BenchmarkMemberFromBadger(b *testing.B) {
	x := benchIndex(b)
	digests := make([]digest.Digest, 20_000)
	for i := range digests {
		digests[i] = digest.FromString(fmt.Sprint(i))
		if err := x.Confirm(repo, digests[i], Member{MediaType: ocispec.MediaTypeImageLayerGzip, Size: int64(i)}); err != nil {
			b.Fatal(err)
		}
	}
	for i := 0; b.Loop(); i++ {
		if _, ok := x.Member(repo, digests[i%len(digests)]); !ok {
			b.Fatal("it is not there")
		}
	}
}

// BenchmarkNoMember asks for what there is no record of.
func BenchmarkNoMember(b *testing.B) {
	x := benchIndex(b)
	for b.Loop() {
		x.Member(repo, d2)
	}
}

func BenchmarkSetTag(b *testing.B) {
	x := benchIndex(b)
	rec, _ := x.Tag(repo, "7")
	for b.Loop() {
		if err := x.SetTag(repo, "7", rec); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConfirm(b *testing.B) {
	x := benchIndex(b)
	for b.Loop() {
		if err := x.Confirm(repo, d2, Member{MediaType: ocispec.MediaTypeImageLayerGzip, Size: 5}); err != nil {
			b.Fatal(err)
		}
	}
}
