package main

import (
	"container/heap"
	"container/list"
	"math"
)

// lru gives up what was used least recently.
type lru struct {
	order *list.List // of objects; first is what goes first
	at    map[uint32]*list.Element
}

func newLRU(trace) cache { return &lru{list.New(), make(map[uint32]*list.Element)} }

func (c *lru) touch(o uint32) bool {
	e, ok := c.at[o]
	if ok {
		c.order.MoveToBack(e)
	}
	return ok
}

func (c *lru) add(o uint32, _ int64) { c.at[o] = c.order.PushBack(o) }

func (c *lru) victim() (uint32, bool) {
	if c.order.Len() == 0 {
		return 0, false
	}
	o := c.order.Remove(c.order.Front()).(uint32)
	delete(c.at, o)
	return o, true
}

// s3fifo is S3-FIFO (Yang et al., "FIFO Queues Are All You Need for Cache Eviction", SOSP '23), counting bytes: what is new goes
// through a queue of a tenth of them, into the main one only if it was used meanwhile or went lately. It remembers the names of what
// went: as much as is in the main queue.
type s3fifo struct {
	recent, main, gone queue
	is                 map[uint32]*queued
}

type queue struct {
	list.List
	bytes int64
}

type queued struct {
	object uint32
	size   int64
	in     *queue
	uses   int
	at     *list.Element
}

func newS3FIFO(trace) cache { return &s3fifo{is: make(map[uint32]*queued)} }

func (c *s3fifo) push(q *queued, to *queue) {
	q.in, q.at = to, to.PushBack(q)
	to.bytes += q.size
}

func (c *s3fifo) pop(q *queued) {
	q.in.Remove(q.at)
	q.in.bytes -= q.size
}

func (c *s3fifo) touch(o uint32) bool {
	q := c.is[o]
	if q == nil || q.in == &c.gone {
		return false
	}
	q.uses = min(q.uses+1, 3)
	return true
}

func (c *s3fifo) add(o uint32, size int64) {
	to := &c.recent
	if q := c.is[o]; q != nil {
		c.pop(q)
		to = &c.main
	}
	c.is[o] = &queued{object: o, size: size}
	c.push(c.is[o], to)
}

func (c *s3fifo) victim() (uint32, bool) {
	for c.recent.Len()+c.main.Len() > 0 {
		from := &c.main
		if c.main.Len() == 0 || c.recent.Len() > 0 && 10*c.recent.bytes > c.recent.bytes+c.main.bytes {
			from = &c.recent
		}
		q := from.Front().Value.(*queued)
		c.pop(q)
		switch {
		case q.uses > 0 && from == &c.recent:
			q.uses = 0
			c.push(q, &c.main)
			continue
		case q.uses > 0:
			q.uses--
			c.push(q, &c.main)
			continue
		case from == &c.recent:
			c.push(q, &c.gone)
			for c.gone.bytes > c.main.bytes && c.gone.Len() > 1 {
				oldest := c.gone.Front().Value.(*queued)
				c.pop(oldest)
				delete(c.is, oldest.object)
			}
		default:
			delete(c.is, q.object)
		}
		return q.object, true
	}
	return 0, false
}

// gdsf is Greedy-Dual-Size-Frequency (Cherkasova, HPL-98-69), with the cost of a MiB more for each object than its bytes, and the
// root of the frequency, which does better here than the frequency.
type gdsf struct {
	is    map[uint32]*valued
	least leastFirst
	floor float64 // the value of what went last
}

type valued struct {
	object      uint32
	size        int64
	uses, value float64
	at          int
}

func newGDSF(trace) cache { return &gdsf{is: make(map[uint32]*valued)} }

func (c *gdsf) use(v *valued) {
	v.uses++
	v.value = c.floor + math.Sqrt(v.uses)*(float64(mib)/float64(v.size)+1)
}

func (c *gdsf) touch(o uint32) bool {
	v, ok := c.is[o]
	if ok {
		c.use(v)
		heap.Fix(&c.least, v.at)
	}
	return ok
}

func (c *gdsf) add(o uint32, size int64) {
	v := &valued{object: o, size: size}
	c.is[o] = v
	c.use(v)
	heap.Push(&c.least, v)
}

func (c *gdsf) victim() (uint32, bool) {
	if len(c.least) == 0 {
		return 0, false
	}
	v := heap.Pop(&c.least).(*valued)
	c.floor = v.value
	delete(c.is, v.object)
	return v.object, true
}

type leastFirst []*valued

func (l leastFirst) Len() int           { return len(l) }
func (l leastFirst) Less(i, j int) bool { return l[i].value < l[j].value }
func (l leastFirst) Swap(i, j int) {
	l[i], l[j] = l[j], l[i]
	l[i].at, l[j].at = i, j
}

func (l *leastFirst) Push(x any) {
	v := x.(*valued)
	v.at = len(*l)
	*l = append(*l, v)
}

func (l *leastFirst) Pop() any {
	last := len(*l) - 1
	v := (*l)[last]
	*l = (*l)[:last]
	return v
}
