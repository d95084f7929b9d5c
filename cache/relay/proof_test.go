package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
)

// after is where a reader begins that reads to the end, with a hasher of all before.
func after(before []byte) Start {
	at := from(int64(len(before)))
	at.Hasher = digest.SHA256.Hash()
	at.Hasher.Write(before)
	return at
}

func TestProofOutlivesTransfers(t *testing.T) {
	content, d := random(9 << 20)
	_, other := random(1)
	t.Run("in parts", func(t *testing.T) {
		w := newWorld(t, 0)
		r := w.join(other, w.source(content), Start{To: 100_000, Size: -1})
		defer r.Close()
		expectDigest(t, r, content)
	})
	t.Run("from a hasher", func(t *testing.T) {
		w := newWorld(t, 0)
		r := w.join(other, w.source(content), after(content[:5000]))
		defer r.Close()
		expectDigest(t, r, content[5000:])
	})
	t.Run("from a hasher in another's transfer", func(t *testing.T) {
		for _, matching := range []bool{true, false} {
			w := newWorld(t, 0)
			src := w.source(content)
			sum, check := d, expectEnd
			if !matching {
				sum, check = other, expectDigest
			}
			first := w.join(sum, src, whole)
			defer first.Close()
			expect(t, first, content[:300_000])
			stays, falls := w.join(sum, src, after(content[:200_000])), w.join(sum, src, after(content[:210_000]))
			defer stays.Close()
			defer falls.Close()
			expect(t, falls, content[210_000:230_000])
			expect(t, stays, content[200_000:300_000])
			inStep(t, content[300_000:8<<20], first, stays)
			check(t, first, content[8<<20:])
			check(t, stays, content[8<<20:])
			check(t, falls, content[230_000:])
			expectRequests(t, src, [2]int64{0, -1}, [2]int64{230_000, -1})
		}
	})
	t.Run("in a transfer that can't tell", func(t *testing.T) {
		w := newWorld(t, 0)
		src := w.source(content)
		unknowing, r := w.join(other, src, from(5000)), w.join(other, src, after(content[:5000]))
		defer unknowing.Close()
		defer r.Close()
		inStep(t, content[5000:8<<20], unknowing, r)
		expectDigest(t, r, content[8<<20:])
		expectEnd(t, unknowing, content[8<<20:])
		expectRequests(t, src, [2]int64{5000, -1})
	})
}

// What a reader has got is what has to match, not what another answer of a source says about the same bytes.
func TestProofIsOfWhatWasRead(t *testing.T) {
	content, d := random(9 << 20)
	t.Run("before", func(t *testing.T) {
		w := newWorld(t, 0)
		src := w.source(content)
		first := w.join(d, src, whole)
		defer first.Close()
		expect(t, first, content[:6000])
		wrong := bytes.Clone(content[:5000])
		wrong[0]++
		r := w.join(d, src, after(wrong))
		defer r.Close()
		if got, err := io.ReadAll(r); !errors.Is(err, ErrDigest) || len(got) != chunk-5000 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		expectEnd(t, first, content[6000:])
	})
	t.Run("from another's source", func(t *testing.T) {
		wrong := bytes.Clone(content)
		wrong[len(wrong)-10]++
		w := newWorld(t, 0)
		bad, good := w.source(wrong), w.source(content)
		first, second := w.join(d, bad, whole), w.join(d, good, whole)
		defer first.Close()
		defer second.Close()
		inStep(t, wrong[:8<<20], first, second)
		expectDigest(t, first, wrong[8<<20:])
		expectDigest(t, second, wrong[8<<20:])
	})
	t.Run("from another's source that did no harm yet", func(t *testing.T) {
		wrong := bytes.Clone(content)
		wrong[len(wrong)-1]++
		w := newWorld(t, 0)
		first, second := w.join(d, w.source(wrong), whole), w.join(d, w.source(content), whole)
		defer first.Close()
		defer second.Close()
		inStep(t, content[:8<<20], first, second)
		expectDigest(t, first, content[8<<20:])
		expectEnd(t, second, content[8<<20:])
	})
}

// What a fill has read, or another transfer has brought, is nobody's fault who only brings the rest.
func TestWhoBroughtTheRestAloneIsNotToldOn(t *testing.T) {
	content, d := random(1 << 20)
	wrong := bytes.Clone(content[:5000])
	wrong[0]++
	w := newWorld(t, 0)
	src := w.source(content)
	r := w.join(d, src, after(wrong))
	defer r.Close()
	if _, err := io.ReadAll(r); !errors.Is(err, ErrDigest) || len(src.distrusted) > 0 {
		t.Errorf("%v; told on: %v", err, src.distrusted)
	}
}
