package policy

import (
	"testing"

	"github.com/opencontainers/go-digest"
)

const large = small + 1

// TestWhatGoesFirst tells by small stories what the policy is for. A name is of large content, unless it begins with a minus.
func TestWhatGoesFirst(t *testing.T) {
	add := func(names ...string) func(*Policy) {
		return func(p *Policy) {
			for _, name := range names {
				p.Add(digest.FromString(name), sizeOf(name))
			}
		}
	}
	touch := func(names ...string) func(*Policy) {
		return func(p *Policy) {
			for _, name := range names {
				p.Touch(digest.FromString(name))
			}
		}
	}
	victims := func(n int) func(*Policy) {
		return func(p *Policy) {
			for range n {
				p.TakeVictim()
			}
		}
	}
	pin := func(name string, is bool) func(*Policy) {
		return func(p *Policy) { p.Pin(digest.FromString(name), is) }
	}
	demote := func(name string, notSince uint32) func(*Policy) {
		return func(p *Policy) { p.Demote(digest.FromString(name), notSince) }
	}
	for _, test := range []struct {
		name  string
		story []func(*Policy)
		goes  []string // from then on
	}{
		{"nothing was used again: in the order of coming", steps(add("a", "b", "c")), []string{"a", "b", "c"}},
		{"use among what is fresh counts", steps(add("a", "b", "c"), touch("a")), []string{"b", "c", "a"}},
		{"a scan displaces no more than the half",
			steps(add("a", "b"), touch("a", "b"), add("1", "2", "3", "4", "5"), victims(4)), []string{"a", "5", "b"}},
		{"of what is proven that goes first which earned no lap",
			steps(add("a", "b", "c"), touch("a", "b", "c"), add("1", "2", "3"), victims(1), touch("a")),
			[]string{"b", "2", "c", "3", "a"}},
		{"what was used often outlives what was used lately",
			steps(add("a"), touch("a"), add("1", "2"), victims(1), touch("a", "a"), add("b"), touch("b")), []string{"2", "b", "a"}},
		{"small content outlives large", steps(add("-a", "b", "c", "d"), touch("b")), []string{"c", "d", "b", "-a"}},
		{"pinned content does not go", steps(add("a", "b", "c"), pin("a", true)), []string{"b", "c"}},
		{"to be pinned no more is to be used", steps(add("a", "b"), pin("a", true), pin("a", false)), []string{"b", "a"}},
		{"demoted content goes next", steps(add("a", "b", "-c", "d"), demote("-c", 1), demote("b", 1)), []string{"-c", "b", "a", "d"}},
		{"what was used since is not demoted",
			steps(add("a", "b"), (*Policy).Turn, touch("b"), demote("b", 1)), []string{"a", "b"}},
		{"what was demoted and is used stays", steps(add("a", "b"), demote("a", 1), touch("a")), []string{"b", "a"}},
		{"what is pinned is not demoted", steps(add("a", "b"), pin("a", true), demote("a", 1)), []string{"b"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := New()
			for _, step := range test.story {
				step(p)
			}
			for _, want := range test.goes {
				if got, _ := p.TakeVictim(); got.Digest != digest.FromString(want) {
					t.Fatalf("it is not %s that goes", want)
				}
			}
			if e, ok := p.TakeVictim(); ok {
				t.Errorf("%v goes too", e)
			}
		})
	}
}

func steps(all ...func(*Policy)) []func(*Policy) { return all }

func sizeOf(name string) int64 {
	if name[0] == '-' {
		return small
	}
	return large
}

// TestVictimIsFoundSoon has all be used: what goes is found after few looks, and what was looked at is moved all the same, so that
// it is not looked at again.
func TestVictimIsFoundSoon(t *testing.T) {
	p := New()
	const n = 3 * patience
	for i := range n {
		p.Add(numbered(i), large)
		p.Touch(numbered(i))
	}
	for _, want := range []int{patience, 0} {
		if e, ok := p.TakeVictim(); !ok || e.Digest != numbered(want) {
			t.Fatalf("victim %v, want %v", e, numbered(want))
		}
	}
	if got := p.rings[proven].len; got != n/2-1 {
		t.Errorf("%d are proven, want the half less the second that went", got)
	}
}

func TestFirstUseInAPeriod(t *testing.T) {
	p := New()
	p.Adopt(numbered(0), 1)
	p.Add(numbered(1), 1)
	for i, step := range []struct {
		of           int
		known, first bool
	}{{0, true, true}, {0, true, false}, {1, true, false}, {2, false, false}} {
		if known, first := p.Touch(numbered(step.of)); known != step.known || first != step.first {
			t.Errorf("step %d: %v %v", i, known, first)
		}
	}
	p.Turn()
	if _, first := p.Touch(numbered(1)); !first {
		t.Error("no first use in a new period")
	}
	for of, used := range []uint32{1, 2} {
		if e, _ := p.Take(numbered(of)); e.Used != used {
			t.Errorf("%d was used in %d", of, e.Used)
		}
	}
}
