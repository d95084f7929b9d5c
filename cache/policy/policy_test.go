package policy

import (
	"crypto/sha256"
	_ "crypto/sha512"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// model is the slow and obvious policy: what goes first stands first.
type model struct{ used, found []Entry }

func (m *model) take(d digest.Digest) (e Entry, ok bool) {
	for _, ring := range []*[]Entry{&m.used, &m.found} {
		if i := slices.IndexFunc(*ring, func(e Entry) bool { return e.Digest == d }); i >= 0 {
			e = (*ring)[i]
			*ring = slices.Delete(*ring, i, i+1)
			return e, true
		}
	}
	return Entry{}, false
}

func (m *model) touch(d digest.Digest) bool {
	e, ok := m.take(d)
	if ok {
		m.used = append(m.used, e)
	}
	return ok
}

func (m *model) all() []Entry { return append(slices.Clone(m.found), m.used...) }

// content is the digest of one of some hundred: of every algorithm, and some that differ only where a node does not look.
func content(i byte) digest.Digest {
	switch i % 4 {
	case 0:
		return digest.SHA512.FromBytes([]byte{i})
	case 1:
		return digest.SHA384.FromBytes([]byte{i})
	case 2: // a SHA-512 that begins as a SHA-256 does
		encoded := digest.FromBytes([]byte{i + 1}).Encoded()
		return digest.NewDigestFromEncoded(digest.SHA512, encoded+fmt.Sprintf("%064x", i))
	}
	return digest.FromBytes([]byte{i})
}

// run carries out what the bytes say, on a policy and on its model, and compares.
func run(t *testing.T, script []byte) {
	p, m := New(), &model{}
	var refs []Ref // of what was adopted, and is settled in any order
	adopting := make(map[Ref]digest.Digest)
	for len(script) >= 2 {
		d, size := content(script[1]), int64(script[1])<<36
		switch op := script[0] % 8; op {
		case 0, 1:
			p.Add(d, size)
			if !m.touch(d) {
				m.used = append(m.used, Entry{d, size})
			}
		case 2:
			if p.Touch(d) != m.touch(d) {
				t.Fatal("touch")
			}
		case 3:
			got, ok := p.Take(d)
			if want, known := m.take(d); got != want || ok != known {
				t.Fatalf("took %v %v, want %v %v", got, ok, want, known)
			}
		case 4:
			if all := m.all(); len(all) > 0 {
				m.take(all[0].Digest)
				if got, ok := p.TakeVictim(); !ok || got != all[0] {
					t.Fatalf("victim %v %v, want %v", got, ok, all[0])
				}
			} else if e, ok := p.TakeVictim(); ok {
				t.Fatalf("victim %v of none", e)
			}
		case 5, 6:
			r, ok := p.Adopt(d, size)
			if ok == slices.Contains(m.all(), Entry{d, size}) {
				t.Fatalf("adopted: %v", ok)
			}
			if ok {
				m.found = append(m.found, Entry{d, size})
				refs = append(refs, r)
				adopting[r] = d
			}
		case 7:
			if slices.Sort(refs); script[1]%2 == 0 {
				slices.Reverse(refs)
			}
			p.Settle(refs)
			for _, r := range refs {
				m.settle(adopting[r])
			}
			refs = refs[:0]
		}
		script = script[2:]
		compare(t, p, m)
	}
	for want := range slices.Values(m.all()) {
		if got, _ := p.TakeVictim(); got != want {
			t.Fatalf("at the end %v, want %v", got, want)
		}
	}
	if p.Len() != 0 || p.Bytes() != 0 || len(p.long) > 0 {
		t.Errorf("%d of %d bytes are left, %d of them long", p.Len(), p.Bytes(), len(p.long))
	}
}

// settle moves what is found still before all that is used.
func (m *model) settle(d digest.Digest) {
	if slices.ContainsFunc(m.found, func(e Entry) bool { return e.Digest == d }) {
		e, _ := m.take(d)
		m.used = append([]Entry{e}, m.used...)
	}
}

func compare(t *testing.T, p *Policy, m *model) {
	t.Helper()
	var bytes int64
	for _, e := range m.all() {
		bytes += e.Size
		if !p.Has(e.Digest) {
			t.Fatalf("%v is not known", e)
		}
	}
	if p.Len() != len(m.all()) || p.Bytes() != bytes {
		t.Fatalf("%d of %d bytes, want %d of %d", p.Len(), p.Bytes(), len(m.all()), bytes)
	}
}

func TestPolicyIsItsModel(t *testing.T) {
	for seed := range uint64(100) {
		script := make([]byte, 0, 1024)
		for i := uint64(0); len(script) < cap(script); i++ {
			h := sha256.Sum256(binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, seed), i))
			script = append(script, h[:]...)
		}
		run(t, script)
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add([]byte{5, 1, 5, 3, 2, 1, 7, 0, 4, 0, 4, 0})
	f.Add([]byte{0, 2, 0, 3, 3, 2, 0, 7, 4, 0, 5, 2, 7, 1})
	f.Fuzz(run)
}

// TestManyComeAndGo has tables grow and chunks be filled anew.
func TestManyComeAndGo(t *testing.T) {
	p := New()
	const n = 100_000
	for i := range n {
		p.Add(numbered(i), 1)
		if i >= n/4 {
			if e, ok := p.TakeVictim(); !ok || e.Digest != numbered(i-n/4) {
				t.Fatalf("%d: victim %v", i, e)
			}
		}
	}
	if p.Len() != n/4 || len(p.nodes) > n/4/chunk+1 {
		t.Errorf("%d are known in %d chunks", p.Len(), len(p.nodes))
	}
	for i := range n {
		if p.Has(numbered(i)) != (i >= n-n/4) {
			t.Fatalf("%d", i)
		}
	}
}

func numbered(i int) digest.Digest {
	h := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	return digest.NewDigestFromBytes(digest.SHA256, h[:])
}

// TestNodesLiveAsLongAsTheirPolicy has the collector run while policies come and go: one whose memory was given back too early
// would end the process.
func TestNodesLiveAsLongAsTheirPolicy(t *testing.T) {
	for i := range 300 {
		p := New()
		p.Add(numbered(i), 1)
		runtime.GC()
		if !p.Has(numbered(i)) {
			t.Fatal("forgotten")
		}
	}
}
