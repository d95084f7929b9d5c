package main

import (
	"container/heap"
	"math"
)

// optimum is how many bytes at least have to be fetched, by whoever knows what is asked for next: no policy fetches less.
//
// What a miss costs is its bytes. So let each byte be kept or not by itself: what a policy does with whole objects can be done with
// bytes, and costs the same; hence the least for bytes is no more than the least for objects. Bytes are all of one size
// and one cost, and for those the least is known: of what is kept and what was just asked for, that goes which is asked for
// again last (Belady's rule; that what was just asked for may go at once is what makes it right where nothing has to be kept). All
// bytes of an object are asked for at the same time, so it is enough to count how many of them are kept.
func optimum(t trace, capacity int64) (fetched int64) {
	next := nextUse(t)
	kept, sum := make([]int64, len(t.objects)), int64(0)
	var last farthest
	for i, r := range t.requests {
		size := t.objects[r.object].size
		fetched += size - kept[r.object]
		sum -= kept[r.object]
		kept[r.object] = 0
		if next[i] == never {
			continue
		}
		kept[r.object] = size
		sum += size
		heap.Push(&last, use{next[i], r.object})
		for sum > capacity {
			// An entry whose time has come was of a use before: what its object has kept since has another entry, of a later time.
			goes := last[0].object
			n := min(sum-capacity, kept[goes])
			kept[goes] -= n
			sum -= n
			if kept[goes] == 0 {
				heap.Pop(&last)
			}
		}
	}
	return fetched
}

const never = math.MaxInt

// nextUse tells for each request which is the next one for the same.
func nextUse(t trace) []int {
	next, later := make([]int, len(t.requests)), make(map[uint32]int)
	for i := len(t.requests) - 1; i >= 0; i-- {
		o := t.requests[i].object
		next[i] = never
		if at, ok := later[o]; ok {
			next[i] = at
		}
		later[o] = i
	}
	return next
}

// use is when an object is asked for next.
type use struct {
	at     int
	object uint32
}

// farthest is a heap with the latest first.
type farthest []use

func (f farthest) Len() int           { return len(f) }
func (f farthest) Less(i, j int) bool { return f[i].at > f[j].at }
func (f farthest) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *farthest) Push(x any)        { *f = append(*f, x.(use)) }
func (f *farthest) Pop() any {
	last := len(*f) - 1
	x := (*f)[last]
	*f = (*f)[:last]
	return x
}
