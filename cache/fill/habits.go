package fill

import (
	"sync"
	"time"
)

// habit is what trials have shown of an origin.
type habit struct {
	want int       // how many workers there are to be
	rest time.Time // until when there are no trials
	vain int       // trials in a row that brought nothing
	at   time.Time // when the last trial ended; zero: there was none
}

// habits are what is known of origins, by their names. The zero value knows none.
type habits struct {
	mu sync.Mutex // taken last of all
	// guards following
	of map[string]habit
}

// habitFor is how long it holds what a trial showed of an origin: for the layers of an image, and its neighbours.
const habitFor = time.Minute

// maxHabits bounds what is remembered: more than there are endpoints of all registries.
const maxHabits = 1000

// recall returns what is known of an origin; ok is false if that is nothing, or too old to hold.
func (s *habits) recall(origin string, now time.Time) (h habit, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok = s.of[origin]
	if ok && now.Sub(h.at) > habitFor && !now.Before(h.rest) {
		return habit{}, false
	}
	return h, ok
}

// learn takes down what was seen of an origin.
func (s *habits) learn(origin string, h habit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of == nil || len(s.of) >= maxHabits {
		s.of = make(map[string]habit)
	}
	s.of[origin] = h
}
