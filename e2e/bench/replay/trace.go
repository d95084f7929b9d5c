package main

import (
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
)

// object is content that is asked for.
type object struct {
	size  int64
	names []uint32 // what a manifest or an index names; nil for other content
}

// request asks for an object. It is one that was fetched by tag if tag is not 0: what a tag names may be another one later.
type request struct {
	object, tag uint32
}

// trace is what the clients of a cache ask for, in this order.
type trace struct {
	objects  []object
	requests []request
}

// named yields an object and all that it names, and what that names.
func (t trace) named(o uint32) iter.Seq[uint32] {
	return func(yield func(uint32) bool) { t.walk(o, yield) }
}

func (t trace) walk(o uint32, yield func(uint32) bool) bool {
	if !yield(o) {
		return false
	}
	for _, named := range t.objects[o].names {
		if !t.walk(named, yield) {
			return false
		}
	}
	return true
}

// image is one version of a repository: the index, the manifest of the platform that everybody has, its config and layers.
type image struct {
	index, manifest, config uint32
	layers                  []uint32
}

// stack is what images are built upon: layers that are made anew now and then, upon another stack or nothing.
type stack struct {
	below  *stack
	layers []uint32
	sizes  []int64
	made   float64 // when the layers were
	next   float64 // when they are made anew
	every  float64
}

type repository struct {
	tag      uint32
	upon     *stack
	sizes    []int64 // of its own layers; each version's differ a little
	versions []image
	own      []uint32
	made     float64
	next     float64
}

// client has what it has pulled, until it is replaced.
type client struct {
	has  map[uint32]bool
	next float64
}

// pull is an event of which requests come.
type pull struct {
	at    float64
	rank  int // of the repository by popularity; below 0: one never seen again
	fresh bool
}

type generator struct {
	mix
	*rand.Rand
	trace   trace
	stacks  []*stack
	popular []float64 // cumulative
	phase   []float64
	repos   map[[2]int]*repository
	clients []client
	tags    uint32
}

func generate(m mix) trace {
	g := &generator{mix: m, Rand: rand.New(rand.NewPCG(m.seed, 0)), repos: make(map[[2]int]*repository)}
	g.foundations()
	g.popular = zipf(m.repositories, m.skew)
	for range m.repositories {
		g.phase = append(g.phase, g.Float64())
	}
	g.clients = make([]client, m.clients)
	for _, p := range g.pulls() {
		g.serve(p)
	}
	return g.trace
}

// foundations makes what images are built upon: ten systems, and forty runtimes upon them.
func (g *generator) foundations() {
	for range 10 {
		g.stacks = append(g.stacks, &stack{sizes: []int64{g.logUniform(3*mib, 80*mib)}, every: 30})
	}
	for range 40 {
		s := &stack{below: g.stacks[pick(g.Rand, zipf(10, 1))], every: 30}
		for range 1 + g.IntN(4) {
			s.sizes = append(s.sizes, g.logUniform(1*mib, 150*mib))
		}
		g.stacks = append(g.stacks, s)
	}
}

// pulls draws who pulls what and when.
func (g *generator) pulls() []pull {
	var all []pull
	for range g.mix.pulls {
		p := pull{at: g.Float64() * g.days, rank: -1, fresh: g.Float64() < g.fresh}
		if g.Float64() >= g.single {
			p.rank = pick(g.Rand, g.popular)
		}
		all = append(all, p)
		if p.rank < 0 {
			continue
		}
		for g.Float64() < g.burst/(1+g.burst) {
			all = append(all, pull{p.at + g.ExpFloat64()*g.spread, p.rank, p.fresh})
		}
	}
	if g.scanEvery > 0 {
		for at := g.scanEvery; at < g.days; at += g.scanEvery {
			for range g.scanned {
				all = append(all, pull{at, -1, true})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b pull) int {
		switch {
		case a.at < b.at:
			return -1
		case a.at > b.at:
			return 1
		}
		return 0
	})
	return all
}

// serve appends the requests of a pull. Who has an index does not ask for it again, nor for what it names.
func (g *generator) serve(p pull) {
	r := g.repository(p)
	g.rebuild(r, p.at)
	version, tag := len(r.versions)-1, r.tag
	if g.Float64() < g.pinned {
		version, tag = max(0, version-1-int(g.ExpFloat64()*2)), 0
	}
	im := r.versions[version]
	has := map[uint32]bool{}
	if !p.fresh {
		c := &g.clients[g.IntN(len(g.clients))]
		if p.at >= c.next {
			c.has, c.next = make(map[uint32]bool), p.at+g.ExpFloat64()*g.replaced
		}
		has = c.has
	}
	ask := func(o, tag uint32) {
		if !has[o] {
			has[o] = true
			g.trace.requests = append(g.trace.requests, request{o, tag})
		}
	}
	ask(im.index, tag)
	ask(im.manifest, 0)
	ask(im.config, 0)
	for _, l := range im.layers {
		ask(l, 0)
	}
}

func (g *generator) repository(p pull) *repository {
	if p.rank < 0 {
		return g.newRepository()
	}
	key := [2]int{p.rank, int(p.at/g.life + g.phase[p.rank])}
	if g.repos[key] == nil {
		g.repos[key] = g.newRepository()
	}
	return g.repos[key]
}

func (g *generator) newRepository() *repository {
	g.tags++
	r := &repository{tag: g.tags, upon: g.stacks[pick(g.Rand, zipf(len(g.stacks), 0.8))]}
	for range 1 + int(g.ExpFloat64()*4) {
		r.sizes = append(r.sizes, g.layerSize())
	}
	return r
}

// layers returns the layers of a stack, made anew if it is time for that.
func (g *generator) layers(s *stack, at float64) []uint32 {
	if s == nil {
		return nil
	}
	below := g.layers(s.below, at)
	if at >= s.next || s.below != nil && s.below.made > s.made {
		s.made, s.next = at, at+g.ExpFloat64()*s.every
		s.layers = slices.Clone(below)
		for _, size := range s.sizes {
			s.layers = append(s.layers, g.object(g.near(size)))
		}
	}
	return s.layers
}

// rebuild makes a new version if it is time for that. Of a repository's own layers those from some place on are new, often the last
// alone; all are if what lies below them is.
func (g *generator) rebuild(r *repository, at float64) {
	if at < r.next {
		return
	}
	r.next = at + g.ExpFloat64()*g.rebuilt
	below := g.layers(r.upon, at)
	kept := len(r.own) - 1
	for kept > 0 && g.Float64() < 0.4 {
		kept--
	}
	if r.upon.made > r.made {
		kept = 0
	}
	r.made = at
	r.own = slices.Clone(r.own[:max(0, kept)])
	for _, size := range r.sizes[len(r.own):] {
		r.own = append(r.own, g.object(g.near(size)))
	}
	im := image{layers: slices.Concat(below, r.own), config: g.object(g.logUniform(2*kib, 16*kib))}
	im.manifest = g.object(g.logUniform(kib, 4*kib), append([]uint32{im.config}, im.layers...)...)
	im.index = g.object(g.logUniform(kib, 4*kib), im.manifest)
	r.versions = append(r.versions, im)
}

func (g *generator) object(size int64, names ...uint32) uint32 {
	g.trace.objects = append(g.trace.objects, object{size, names})
	return uint32(len(g.trace.objects) - 1)
}

// layerSize draws a size. Small ones are after Anwar et al., "Improving Docker Registry Design Based on Production Workload Analysis"
// (FAST '18): 65 % of the layers are below 1 MB, 80 % below 10 MB. The others are after Zhao et al., "Large-Scale Analysis of the
// Docker Hub Dataset" (CLUSTER '19), layers as they are sent: half are below 4 MB, 90 % below 63 MB.
func (g *generator) layerSize() int64 {
	if !g.small {
		return min(int64(4e6*math.Exp(2.15*g.NormFloat64()))+128, 5000*mib)
	}
	switch share := g.Float64(); {
	case share < 0.65:
		return g.logUniform(128, 1e6)
	case share < 0.8:
		return g.logUniform(1e6, 1e7)
	}
	return g.logUniform(1e7, 1e9)
}

func (g *generator) logUniform(low, high int64) int64 {
	return int64(float64(low) * math.Pow(float64(high)/float64(low), g.Float64()))
}

// near is a size that differs a little, as that of a layer built anew does.
func (g *generator) near(size int64) int64 { return int64(float64(size) * (0.95 + 0.1*g.Float64())) }

// zipf returns the cumulative weights of n ranks.
func zipf(n int, exponent float64) []float64 {
	sums, sum := make([]float64, n), 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -exponent)
		sums[i] = sum
	}
	return sums
}

func pick(r *rand.Rand, cumulative []float64) int {
	at := r.Float64() * cumulative[len(cumulative)-1]
	return min(sort.SearchFloat64s(cumulative, at), len(cumulative)-1)
}
