package relay

import (
	"bytes"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
)

// TestModel lets readers come, read, seek and leave at random, while sources break off, and compares each byte with the
// content.
func TestModel(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, 1))) })
	}
}

type model struct {
	src    *source
	digest digest.Digest
}

type modelReader struct {
	*Reader
	content []byte
	pos     int64
}

func runModel(t *testing.T, rng *rand.Rand) {
	const memory = 10 << 20
	w := newWorld(t, memory)
	var contents []model
	for range 3 {
		content, d := random(6<<20 + rng.IntN(6<<20))
		src := w.source(content)
		src.cut = 70_000 + rng.Int64N(3<<20)
		contents = append(contents, model{src, d})
	}
	var readers []*modelReader
	buf := make([]byte, 1<<20)
	for range 3000 {
		if reserved, held := w.memory(); held > reserved || reserved > memory {
			t.Fatalf("%d bytes are held, %d reserved", held, reserved)
		}
		if len(readers) == 0 || len(readers) < 20 && rng.IntN(10) == 0 {
			readers = append(readers, contents[rng.IntN(len(contents))].join(w, rng))
			continue
		}
		i := rng.IntN(len(readers))
		r := readers[i]
		switch rng.IntN(40) {
		case 0:
			r.Close()
			readers = append(readers[:i], readers[i+1:]...)
		case 1:
			r.pos = rng.Int64N(int64(len(r.content)) + 10)
			seek(t, r.Reader, r.pos)
		default:
			r.read(t, buf[:1+rng.IntN(1<<(1+rng.IntN(20)))])
		}
	}
	for _, r := range readers {
		for r.pos < int64(len(r.content)) {
			r.read(t, buf)
		}
		r.Close()
	}
}

// join begins at the start or elsewhere, to read to the end or not.
func (m model) join(w *world, rng *rand.Rand) *modelReader {
	size := int64(len(m.src.content))
	at := Start{To: math.MaxInt64, Size: size}
	if rng.IntN(2) == 0 {
		at.Offset = rng.Int64N(size)
	}
	if at.Offset > 0 && rng.IntN(2) == 0 {
		at.Hasher = m.digest.Algorithm().Hash()
		at.Hasher.Write(m.src.content[:at.Offset])
	}
	if rng.IntN(3) == 0 {
		at.To = at.Offset + 1 + rng.Int64N(size-at.Offset)
	}
	if rng.IntN(2) == 0 {
		at.Size = -1
	}
	return &modelReader{w.join(m.digest, m.src, at), m.src.content, at.Offset}
}

func (r *modelReader) read(t *testing.T, p []byte) {
	t.Helper()
	n, err := r.Read(p)
	left := max(0, int64(len(r.content))-r.pos)
	switch {
	case left == 0 && (n != 0 || err != io.EOF), left > 0 && (n == 0 || err != nil):
		t.Fatalf("read %d bytes of %d, %v", n, left, err)
	case left > 0 && !bytes.Equal(p[:n], r.content[r.pos:r.pos+int64(n)]):
		t.Fatalf("wrong bytes at %d", r.pos)
	}
	r.pos += int64(n)
}
