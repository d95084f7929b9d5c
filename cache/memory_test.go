package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/keeper"
)

func smallOf(n, size int) *small {
	return &small{digest: digest.FromString(fmt.Sprint(n)), body: make([]byte, size)}
}

// heldIn lists what m holds, the most recently used first, and checks its sum.
func heldIn(t *testing.T, m *memory) (order []digest.Digest) {
	t.Helper()
	var sum int64
	for e := m.order.Front(); e != nil; e = e.Next() {
		s := e.Value.(*small)
		order, sum = append(order, s.digest), sum+s.cost()
	}
	if sum != m.held || len(order) != len(m.at) || sum > memoryLimit {
		t.Fatalf("%d entries of %d bytes, %d in the table, %d counted", len(order), sum, len(m.at), m.held)
	}
	return order
}

func TestMemoryHoldsWhatWasUsedLast(t *testing.T) {
	var m memory
	var model []*small // the most recently used in front
	forget := func(d digest.Digest) {
		model = slices.DeleteFunc(model, func(s *small) bool { return s.digest == d })
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		switch s := smallOf(rnd.IntN(100), rnd.IntN(maxInMemory)); rnd.IntN(8) {
		case 0:
			m.drop(s.digest)
			forget(s.digest)
		case 1, 2:
			m.hold(s)
			forget(s.digest)
			model = slices.Insert(model, 0, s)
			for sum := int64(0); ; sum = 0 {
				for _, s := range model {
					sum += s.cost()
				}
				if sum <= memoryLimit {
					break
				}
				model = model[:len(model)-1]
			}
		default:
			got, ok := m.find(s.digest)
			i := slices.IndexFunc(model, func(is *small) bool { return is.digest == s.digest })
			if ok != (i >= 0) || ok && got != model[i] {
				t.Fatalf("found %v, %v; the model has it at %d", got, ok, i)
			}
			if ok {
				forget(s.digest)
				model = slices.Insert(model, 0, got)
			}
		}
		order := heldIn(t, &m)
		if !slices.EqualFunc(order, model, func(d digest.Digest, s *small) bool { return d == s.digest }) {
			t.Fatalf("%v, want %v", order, model)
		}
	}
}

func TestWhatIsRemovedLeavesMemory(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	here, gone := smallOf(1, 10), smallOf(2, 10)
	here.digest = digest.FromBytes(here.body)
	r.put(here.digest, here.body)
	r.remember(here)
	r.remember(gone) // it was removed while it was read
	if _, ok := r.memory.find(here.digest); !ok {
		t.Error("what is kept is not held")
	}
	if _, ok := r.memory.find(gone.digest); ok {
		t.Error("what was removed is held")
	}
	huge := &small{body: make([]byte, maxInMemory+1)}
	huge.digest = digest.FromBytes(huge.body)
	r.put(huge.digest, huge.body)
	r.remember(huge)
	if _, ok := r.memory.find(huge.digest); ok {
		t.Error("what is not small is held")
	}
}

// Whoever comes first, who remembers content or who removes it: it does not stay in memory.
func TestRemovalMeetsRemembering(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	s := smallOf(1, 10)
	s.digest = digest.FromBytes(s.body)
	for range 500 {
		r.put(s.digest, s.body)
		var both sync.WaitGroup
		both.Go(func() { r.remember(s) })
		both.Go(func() {
			f, ok := r.keeper.Blob(t.Context(), s.digest)
			if !ok {
				t.Error("not kept")
				return
			}
			defer f.Close()
			r.keeper.Drop(s.digest, f, keeper.DamagedContent)
		})
		both.Wait()
		if _, ok := r.memory.find(s.digest); ok {
			t.Fatal("what was removed is held")
		}
	}
}

func BenchmarkMemoryHit(b *testing.B) {
	var m memory
	all := make([]*small, 1000)
	for i := range all {
		all[i] = smallOf(i, 2000)
		m.hold(all[i])
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			if _, ok := m.find(all[i%len(all)].digest); !ok {
				b.Error("a miss")
			}
		}
	})
}

func BenchmarkMemoryHold(b *testing.B) { // with as much going as is coming
	all := make([]*small, 20_000)
	for i := range all {
		all[i] = smallOf(i, 2000)
	}
	var m memory
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m.hold(all[i%len(all)])
	}
}

func TestWhatIsBeingWrittenIsInMemory(t *testing.T) {
	var m memory
	first, again := smallOf(1, 10), smallOf(1, 10)
	if !m.draft(first) || !m.draft(again) {
		t.Fatal("refused")
	}
	m.written(first)
	if s, ok := m.find(first.digest); !ok || s != again || !m.isDraft(first.digest) {
		t.Error("what is still being written is gone")
	}
	m.written(again)
	if _, ok := m.find(first.digest); ok || m.draftsNow() > 0 {
		t.Error("what is written is a draft still")
	}
	for i := range maxDrafts {
		if !m.draft(smallOf(i, 10)) {
			t.Fatalf("refused with %d", i)
		}
	}
	if m.draft(smallOf(maxDrafts, 10)) {
		t.Error("there is no end to drafts")
	}
}

// TestDraftsAreSmall keeps what is larger than memory takes: it is on disk at once.
func TestDraftsAreSmall(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	body := make([]byte, maxInMemory+1)
	s := &small{digest: digest.FromBytes(body), body: body}
	if !r.keep(s) || r.memory.isDraft(s.digest) || !r.keeper.Has(s.digest) {
		t.Error("it is a draft, or not kept")
	}
}
