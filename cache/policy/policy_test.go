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

// model is the slow and obvious policy: of each ring, what goes first stands first.
type model struct {
	rings  [heads][]*known
	period uint32
}

type known struct {
	Entry
	laps int
}

func (k *known) firstLaps() int {
	if k.Size <= small {
		return mostLaps
	}
	return 0
}

func (m *model) find(d digest.Digest) (k *known, ring int) {
	for ring, all := range m.rings {
		for _, k := range all {
			if k.Digest == d {
				return k, ring
			}
		}
	}
	return nil, -1
}

func (m *model) take(d digest.Digest) *known {
	k, ring := m.find(d)
	if k != nil {
		m.rings[ring] = slices.DeleteFunc(m.rings[ring], func(other *known) bool { return other == k })
	}
	return k
}

func (m *model) move(d digest.Digest, ring int) {
	k := m.take(d)
	m.rings[ring] = append(m.rings[ring], k)
}

func (m *model) insert(d digest.Digest, size int64, used uint32, ring int) {
	k := &known{Entry: Entry{Digest: d, Size: size, Used: used}}
	k.laps = k.firstLaps()
	m.rings[ring] = append(m.rings[ring], k)
}

func (m *model) touch(d digest.Digest) (is, first bool) {
	k, ring := m.find(d)
	if k == nil {
		return false, false
	}
	first = k.Used != m.period
	k.Used = m.period
	k.laps = min(k.laps+1, mostLaps)
	if ring == demoted || ring == found || ring == fresh {
		m.move(d, fresh)
	}
	return true, first
}

func (m *model) demote(d digest.Digest, notSince uint32) bool {
	k, ring := m.find(d)
	if k == nil || ring == pinned || k.Used > notSince {
		return false
	}
	if k.laps = k.firstLaps(); ring != demoted {
		m.move(d, demoted)
	}
	return true
}

func (m *model) pin(d digest.Digest, is bool) {
	switch k, ring := m.find(d); {
	case k == nil:
	case is && ring != pinned:
		m.move(d, pinned)
	case !is && ring == pinned:
		m.move(d, fresh)
	}
}

func (m *model) takeVictim() *known {
	for _, ring := range []int{demoted, found} {
		if all := m.rings[ring]; len(all) > 0 {
			return m.take(all[0].Digest)
		}
	}
	for len(m.rings[fresh])+len(m.rings[proven]) > 0 {
		ring := fresh
		if len(m.rings[fresh]) == 0 || sum(m.rings[fresh]) < sum(m.rings[proven]) {
			ring = proven
		}
		switch k := m.rings[ring][0]; {
		case k.laps == 0:
			return m.take(k.Digest)
		case ring == fresh:
			k.laps = k.firstLaps()
			m.move(k.Digest, proven)
		default:
			k.laps--
			m.move(k.Digest, proven)
		}
	}
	return nil
}

// settle moves what is found still before all that is fresh.
func (m *model) settle(d digest.Digest) {
	if _, ring := m.find(d); ring == found {
		k := m.take(d)
		m.rings[fresh] = append([]*known{k}, m.rings[fresh]...)
	}
}

func sum(all []*known) (bytes int64) {
	for _, k := range all {
		bytes += k.Size
	}
	return bytes
}

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
	p, m := New(), &model{period: 1}
	var refs []Ref // of what was adopted, and is settled in any order
	adopting, as := make(map[Ref]digest.Digest), make(map[digest.Digest]Ref)
	for ; len(script) >= 2; script = script[2:] {
		op, arg := script[0], script[1]
		d := content(arg)
		size := int64(arg&3) << (10 * (arg >> 2 & 3)) // 0, small or large
		switch op % 14 {
		case 0, 1, 2:
			p.Add(d, size)
			if is, _ := m.touch(d); !is {
				m.insert(d, size, m.period, fresh)
			}
		case 3, 4:
			known, first := p.Touch(d)
			if is, wanted := m.touch(d); known != is || first != wanted {
				t.Fatalf("touch: %v %v", known, first)
			}
		case 5:
			got, ok := p.Take(d)
			same(t, got, ok, m.take(d))
		case 6, 7:
			got, ok := p.TakeVictim()
			same(t, got, ok, m.takeVictim())
		case 8, 9:
			r, ok := p.Adopt(d, size)
			if k, _ := m.find(d); ok != (k == nil) {
				t.Fatalf("adopted: %v", ok)
			}
			if ok {
				m.insert(d, size, 0, found)
				refs = append(refs, r)
				adopting[r], as[d] = d, r
			}
		case 10:
			if slices.Sort(refs); arg%2 == 0 {
				slices.Reverse(refs)
			}
			p.Settle(refs)
			for _, r := range refs {
				if d := adopting[r]; as[d] == r { // and was not adopted once more, as another
					m.settle(d)
				}
			}
			refs = refs[:0]
		case 11:
			p.Turn()
			m.period++
		case 12:
			is := op < 128
			p.Pin(d, is)
			m.pin(d, is)
		case 13:
			since := m.period - min(m.period, uint32(op/14)%3)
			if got := p.Demote(d, since); got != m.demote(d, since) {
				t.Fatalf("demoted: %v", got)
			}
		}
		compare(t, p, m)
	}
	empty(t, p, m)
}

// same compares what was taken. Nothing is nil.
func same(t *testing.T, got Entry, ok bool, want *known) {
	t.Helper()
	if ok != (want != nil) || ok && got != want.Entry {
		t.Fatalf("took %v %v, want %v", got, ok, want)
	}
}

func compare(t *testing.T, p *Policy, m *model) {
	t.Helper()
	n, bytes := 0, int64(0)
	for ring, all := range m.rings {
		n += len(all)
		bytes += sum(all)
		if r := p.rings[ring]; r.len != len(all) || r.bytes != sum(all) {
			t.Fatalf("ring %d: %v, want %d", ring, r, len(all))
		}
		for _, k := range all {
			if !p.Has(k.Digest) {
				t.Fatalf("%v is not known", k)
			}
		}
	}
	if p.Len() != n || p.Bytes() != bytes || p.Pinned() != len(m.rings[pinned]) {
		t.Fatalf("%d of %d bytes, want %d of %d", p.Len(), p.Bytes(), n, bytes)
	}
}

// empty takes all: what is no victim has to be taken by name.
func empty(t *testing.T, p *Policy, m *model) {
	t.Helper()
	for want := m.takeVictim(); want != nil; want = m.takeVictim() {
		got, ok := p.TakeVictim()
		same(t, got, ok, want)
	}
	if e, ok := p.TakeVictim(); ok {
		t.Fatalf("victim %v of none", e)
	}
	for len(m.rings[pinned]) > 0 {
		want := m.take(m.rings[pinned][0].Digest)
		got, ok := p.Take(want.Digest)
		same(t, got, ok, want)
	}
	if p.Len() != 0 || p.Bytes() != 0 || len(p.long) > 0 {
		t.Errorf("%d of %d bytes are left, %d of them long", p.Len(), p.Bytes(), len(p.long))
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
	f.Add([]byte{8, 1, 8, 3, 3, 1, 10, 0, 6, 0, 6, 0})
	f.Add([]byte{0, 2, 0, 3, 5, 2, 0, 7, 6, 0, 8, 2, 10, 1})
	f.Add([]byte{0, 13, 3, 13, 0, 14, 0, 15, 6, 0, 12, 14, 11, 0, 13, 15, 3, 15, 6, 0, 6, 0})
	f.Fuzz(run)
}

// TestManyComeAndGo has tables grow and chunks be filled anew.
func TestManyComeAndGo(t *testing.T) {
	p := New()
	const n = 100_000
	for i := range n {
		p.Add(numbered(i), large)
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
