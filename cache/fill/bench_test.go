package fill

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

// memory is a source that has its content at hand.
type memory struct{ content []byte }

func (m *memory) Open(_ context.Context, r Request) (Stream, error) {
	part := m.content[r.Offset:]
	if r.Length >= 0 {
		part = part[:r.Length]
	}
	return Stream{Body: io.NopCloser(bytes.NewReader(part)), Size: int64(len(m.content)), Origin: "memory"}, nil
}

func (*memory) Distrust(string) {}

// onDisk returns fills on a disk, and what removes from it.
func onDisk(b *testing.B) (*Fills, *disk.Store) {
	store, err := disk.Open(b.Context(), disk.Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	fills := New(Options{
		Fits:      func(int64) bool { return true },
		Kept:      func(digest.Digest) bool { return false },
		Create:    func(d digest.Digest, size, first int64) (File, error) { return store.Create(d, size, first) },
		Parked:    func(d digest.Digest) (File, []byte, bool, bool) { return store.Parked(d) },
		Final:     func(error) bool { return false },
		Throttled: func(error) bool { return false },
	})
	b.Cleanup(func() {
		fills.Close()
		if err := store.Close(); err != nil {
			b.Error(err)
		}
	})
	return fills, store
}

// BenchmarkFill lands 64 MiB, hashed and on disk, while so many readers send it to sockets; the bytes are those of the content.
func BenchmarkFill(b *testing.B) {
	content, d := random(64 << 20)
	for _, readers := range []int{1, 16} {
		b.Run(fmt.Sprintf("readers=%d", readers), func(b *testing.B) {
			fills, store := onDisk(b)
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				var wg sync.WaitGroup
				for range readers {
					wg.Go(func() { send(b, fills, d, &memory{content}) })
				}
				wg.Wait()
				idle(fills)
				if err := store.Remove(d, int64(len(content))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSmallFill is what a blob of 1 KiB costs, from joining to its being kept.
func BenchmarkSmallFill(b *testing.B) {
	content, d := random(1 << 10)
	fills, store := onDisk(b)
	b.ReportAllocs()
	for b.Loop() {
		r, _, err := fills.Join(b.Context(), d, int64(len(content)), &memory{content}, Whole)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			b.Fatal(err)
		}
		r.Close()
		idle(fills)
		if err := store.Remove(d, int64(len(content))); err != nil {
			b.Fatal(err)
		}
	}
}

func idle(f *Fills) {
	f.mu.Lock()
	var all []*flight
	for _, flight := range f.flights {
		all = append(all, flight)
	}
	f.mu.Unlock()
	for _, flight := range all {
		_ = flight.await(context.Background(), func() bool { return false }) // until it has ended
	}
}

// send reads all of a fill into a socket that somebody empties.
func send(b *testing.B, fills *Fills, d digest.Digest, src *memory) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Error(err)
		return
	}
	defer l.Close()
	var client sync.WaitGroup
	defer client.Wait()
	client.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if n, err := io.Copy(io.Discard, conn); n != int64(len(src.content)) || err != nil {
			b.Error(n, err)
		}
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Error(err)
		return
	}
	defer conn.Close()
	r, _, err := fills.Join(b.Context(), d, int64(len(src.content)), src, Whole)
	if err != nil {
		b.Error(err)
		return
	}
	defer r.Close()
	for sent := int64(0); sent < r.Size(); {
		n, err := r.Send(conn, r.Size()-sent)
		if err != nil {
			b.Error(err)
			return
		}
		sent += n
	}
}

// BenchmarkSpans adds the parts of a blob in an order that leaves many gaps, and asks for what is missing after each.
func BenchmarkSpans(b *testing.B) {
	const parts, step = 1024, 401 // the step has no factor in common with the number of parts
	b.ReportAllocs()
	for b.Loop() {
		var s spans
		for i := range int64(parts) {
			at := i * step % parts
			s.add(at, at+1)
			s.gap(at, parts)
		}
		if s.total() != parts {
			b.Fatal("not whole")
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/parts, "ns/part")
}
