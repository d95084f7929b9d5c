package fill

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestSpansAgreeWithModel holds random additions and questions against a slice of booleans.
func TestSpansAgreeWithModel(t *testing.T) {
	const size = 60
	for seed := range uint64(500) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var s spans
		var model [size]bool
		for range 12 {
			from, to := rng.Int64N(size+1), rng.Int64N(size+1)
			s.add(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
			if err := agree(s, model[:]); err != nil {
				t.Fatalf("seed %d, after adding [%d,%d): %v: %v", seed, from, to, s, err)
			}
		}
	}
}

func agree(s spans, model []bool) error {
	for i := 1; i < len(s); i++ {
		if s[i-1].to >= s[i].from {
			return fmt.Errorf("%v touches or overlaps %v", s[i-1], s[i])
		}
	}
	size, total := int64(len(model)), int64(0)
	for off := int64(0); off <= size; off++ {
		end := off
		for end < size && model[end] {
			end++
		}
		if got := s.end(off); got != end {
			return fmt.Errorf("end(%d) = %d, want %d", off, got, end)
		}
		to := end
		for to < size && !model[to] {
			to++
		}
		if got := s.gap(off, size); got.from != got.to && got != (span{end, to}) || got.from == got.to && end != to {
			return fmt.Errorf("gap(%d) = %v, want [%d,%d)", off, got, end, to)
		}
		if off < size && model[off] {
			total++
		}
	}
	if s.total() != total {
		return fmt.Errorf("total %d, want %d", s.total(), total)
	}
	return nil
}
