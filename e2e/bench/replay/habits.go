package main

import (
	"cmp"
	"math"
	"slices"

	"github.com/entrepot/entrepot/cache/policy"
)

// habits are tried on entrepot's policy. Each makes one for one run.
var habits = []struct {
	name, what string
	make       func(trace) habit
}{
	{"", "as it is", func(trace) habit { return habit{} }},
	{"restart", "restarts in the middle, knowing no more than the period of each last use", restarting},
	{"touch", "a use of an index or a manifest is one of all that it names", touching},
	{"demote", "with a manifest goes what it alone needed, unless that was used in a later period", demoting},
	{"moved", "what only the image needed that a tag named before is demoted at once", moving},
	{"known", "what is new of a repository that was pulled before begins as if it had been used again", knowing},
}

// restarting has the policy forget all that a restart does.
func restarting(t trace) habit {
	n := 0
	return habit{asked: func(r *replay, _ request) {
		if n++; n != len(t.requests)/2 {
			return
		}
		p := r.cache.(*product)
		var kept []policy.Entry
		for e, ok := p.TakeVictim(); ok; e, ok = p.TakeVictim() {
			kept = append(kept, e)
		}
		// Within a period nothing tells the order: digests are as good as random.
		slices.SortFunc(kept, func(a, b policy.Entry) int {
			return cmp.Or(cmp.Compare(b.Used, a.Used), cmp.Compare(a.Digest, b.Digest))
		})
		p.Policy = policy.New()
		refs := make([]policy.Ref, len(kept))
		for i, e := range kept {
			refs[i], _ = p.Adopt(e.Digest, e.Size)
		}
		p.Settle(refs)
	}}
}

func touching(trace) habit {
	return habit{asked: func(r *replay, asked request) {
		for o := range r.named(asked.object) {
			if o != asked.object {
				r.touch(o)
			}
		}
	}}
}

// demoting counts for each object how many of those that are kept name it.
func demoting(t trace) habit {
	needed := make([]int, len(t.objects))
	return habit{
		kept: func(r *replay, o uint32) {
			for _, named := range r.objects[o].names {
				needed[named]++
			}
		},
		evicted: func(r *replay, o uint32) {
			p := r.cache.(*product)
			for _, named := range r.objects[o].names {
				if needed[named]--; needed[named] == 0 {
					p.Demote(p.digests[named], p.gone.Used)
				}
			}
		},
	}
}

// moving counts for each object how many tags need it, as far as they were asked for.
func moving(t trace) habit {
	needed, tagged := make([]int, len(t.objects)), make(map[uint32]uint32)
	return habit{asked: func(r *replay, asked request) {
		before, known := tagged[asked.tag]
		if asked.tag == 0 || known && before == asked.object {
			return
		}
		tagged[asked.tag] = asked.object
		for o := range r.named(asked.object) {
			needed[o]++
		}
		if !known {
			return
		}
		p := r.cache.(*product)
		for o := range r.named(before) {
			if needed[o]--; needed[o] == 0 {
				p.Demote(p.digests[o], math.MaxUint32)
			}
		}
	}}
}

// knowing relies on an image's requests coming one after the other, its index first.
func knowing(trace) habit {
	pulled, known := make(map[uint32]bool), false
	return habit{
		asked: func(r *replay, asked request) {
			if asked.tag != 0 {
				known = pulled[asked.tag]
				pulled[asked.tag] = true
			} else if len(r.objects[asked.object].names) == 1 {
				known = false
			}
		},
		kept: func(r *replay, o uint32) {
			if known {
				r.touch(o)
			}
		},
	}
}
