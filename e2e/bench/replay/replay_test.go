package main

import (
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
)

// short is a mix of which little is drawn.
func short(m mix) mix {
	m.pulls, m.days = m.pulls/20, m.days/20
	return m
}

func TestTracesAreDrawnAlike(t *testing.T) {
	for _, m := range mixes {
		one, other := generate(short(m)), generate(short(m))
		if len(one.requests) < 1000 || !reflect.DeepEqual(one, other) {
			t.Errorf("%s: %d requests, then %d", m.name, len(one.requests), len(other.requests))
		}
	}
}

// drawn is a small trace, of objects of at most most bytes.
func drawn(r *rand.Rand, objects, requests int, most int64) (t trace) {
	for range objects {
		t.objects = append(t.objects, object{size: 1 + r.Int64N(most)})
	}
	for range requests {
		t.requests = append(t.requests, request{object: uint32(r.IntN(objects))})
	}
	return t
}

// exhaustive is the least that whole objects cost: it tries all that can be kept after each request.
func exhaustive(t trace, capacity int64) int64 {
	sizes := make([]int64, 1<<len(t.objects))
	for set := range sizes {
		for o, is := range t.objects {
			if set>>o&1 == 1 {
				sizes[set] += is.size
			}
		}
	}
	least := map[int]int64{0: 0} // by what is kept
	for _, asked := range t.requests {
		after := make(map[int]int64)
		for set, cost := range least {
			have := set | 1<<asked.object
			if have != set {
				cost += t.objects[asked.object].size
			}
			for kept := have; ; kept = (kept - 1) & have {
				if was, ok := after[kept]; sizes[kept] <= capacity && (!ok || cost < was) {
					after[kept] = cost
				}
				if kept == 0 {
					break
				}
			}
		}
		least = after
	}
	best := int64(math.MaxInt64)
	for _, cost := range least {
		best = min(best, cost)
	}
	return best
}

func TestOptimumIsTheLeast(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		same, capacity := drawn(r, 6, 40, 1), r.Int64N(6)
		if got, want := optimum(same, capacity), exhaustive(same, capacity); got != want {
			t.Fatalf("objects of one byte, room for %d: %d, want %d", capacity, got, want)
		}
		different, capacity := drawn(r, 6, 40, 20), r.Int64N(60)
		if got, most := optimum(different, capacity), exhaustive(different, capacity); got > most {
			t.Fatalf("objects of many sizes, room for %d: %d, but whole ones cost %d", capacity, got, most)
		}
	}
}

func TestNobodyFetchesLessThanTheOptimum(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		tr, capacity := drawn(r, 60, 2000, 200<<10), int64(1+r.IntN(3<<20))
		most := int64(0)
		for _, asked := range tr.requests {
			most += tr.objects[asked.object].size
		}
		least := optimum(tr, capacity)
		for _, p := range policies {
			got := run(tr, p.make(tr), capacity, habit{})
			if got.fetched < least || got.fetched > most || got.held > capacity {
				t.Fatalf("%s: %d fetched, the optimum is %d; %d held of %d", p.name, got.fetched, least, got.held, capacity)
			}
		}
	}
}

func TestLRU(t *testing.T) {
	c := newLRU(trace{})
	for o := range uint32(3) {
		c.add(o, 1)
	}
	c.touch(0)
	for _, want := range []uint32{1, 2, 0} {
		if got, ok := c.victim(); !ok || got != want || c.touch(got) {
			t.Errorf("%d goes, want %d", got, want)
		}
	}
}

// TestBeatsLRU is what the policy was chosen for: fewer bytes from upstream than plain LRU fetches, of each trace and in each size.
func TestBeatsLRU(t *testing.T) {
	for _, m := range mixes {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			tr := generate(m)
			set := int64(0)
			for o := range asked(tr) {
				set += tr.objects[o].size
			}
			for _, share := range shares {
				capacity := int64(share * float64(set))
				ours, plain := run(tr, newProduct(tr), capacity, habit{}), run(tr, newLRU(tr), capacity, habit{})
				if ours.fetched >= plain.fetched || ours.fetches >= plain.fetches {
					t.Errorf("room for %.0f %%: %d bytes and %d manifests, plain LRU %d and %d",
						100*share, ours.fetched, ours.fetches, plain.fetched, plain.fetches)
				}
			}
		})
	}
}

func asked(t trace) map[uint32]bool {
	all := make(map[uint32]bool)
	for _, r := range t.requests {
		all[r.object] = true
	}
	return all
}
