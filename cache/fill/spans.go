package fill

import "slices"

// span is the bytes [from, to) of the content.
type span struct{ from, to int64 }

// spans are the parts of the content that are here: sorted, disjoint, and never touching each other. The zero value is
// none. It is not safe for concurrent use.
type spans []span

// add puts [from, to) in. Bytes that are there already may be in it.
func (s *spans) add(from, to int64) {
	if from >= to {
		return
	}
	// Those from i to j overlap or touch the new one, and become one with it.
	i, _ := slices.BinarySearchFunc(*s, from, func(have span, from int64) int {
		if have.to < from {
			return -1
		}
		return 1
	})
	j := i
	for ; j < len(*s) && (*s)[j].from <= to; j++ {
		from, to = min(from, (*s)[j].from), max(to, (*s)[j].to)
	}
	*s = slices.Replace(*s, i, j, span{from, to})
}

// end is where the run of bytes that are here from off on ends; off itself if the byte at off isn't here.
func (s spans) end(off int64) int64 {
	if i := s.after(off); i < len(s) && s[i].from <= off {
		return s[i].to
	}
	return off
}

// gap is the first run of bytes at or after off, and before size, that are not here; empty if there is none.
func (s spans) gap(off, size int64) span {
	i := s.after(off)
	if i < len(s) && s[i].from <= off {
		off = s[i].to
		i++
	}
	if i < len(s) {
		size = min(size, s[i].from)
	}
	return span{min(off, size), size}
}

// after is the index of the first span that ends after off.
func (s spans) after(off int64) int {
	i, _ := slices.BinarySearchFunc(s, off, func(have span, off int64) int {
		if have.to <= off {
			return -1
		}
		return 1
	})
	return i
}

// total is how many bytes are here.
func (s spans) total() (n int64) {
	for _, have := range s {
		n += have.to - have.from
	}
	return n
}
