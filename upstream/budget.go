package upstream

import (
	"math"
	"time"
)

const (
	// unstatedWindow is how long a stated remainder counts whose window is not stated: then one request finds out.
	unstatedWindow = time.Hour

	// A 429 that does not say for how long is obeyed for firstHold, and each further one in a row for twice as long, up to
	// lastHold: limits on requests a second are over by the first, those on requests an hour cost sixty requests more.
	firstHold = time.Second
	lastHold  = time.Minute
)

// budget is what one account may ask of an endpoint, as far as that is known: arithmetic alone, which is told the time, and
// which its owner guards. The zero value knows of no limit and holds nothing back, and so it stays with a registry that never
// mentions one.
//
// Two sorts of limits are told apart. What is counted over hours (GETs of manifests, at Docker Hub) is spent one by one: no
// more are under way than are left for sure, the last of them alone, for its answer tells. What limits requests of any sort
// (its 429 comes to what is not counted, or while some are left) holds back all that is of the same traffic, and has it spaced
// from then on. Whether it limits the other traffic too, one request of that finds out.
type budget struct {
	governed         bool
	limit, remaining int64 // as last stated; limit 0: never
	window           time.Duration
	stated           time.Time
	flying           int64 // counted ones under way

	spent hold // of what is counted
	all   [len(traffics)]hold
	paced [len(traffics)]bool // whether it keeps to the pace
	pace  pace                // one for all traffic, for so it is counted
}

// want is what is to be asked, as far as it matters to a budget.
type want struct {
	traffic     traffic
	counted     bool // it is counted over hours
	dispensable bool // it stays off the reserve
	patience    time.Duration
}

// ticket is a request under way.
type ticket struct {
	traffic    traffic
	counted    bool
	began      time.Time // when it may be made, which is later than it was let pass if it is paced
	spent, all int       // the trials that it is; 0: none
}

// limits are what an answer says of them.
type limits struct {
	came             bool // there was an answer
	throttled        bool // it is a 429
	retryAfter       time.Duration
	stated           bool // the following are
	limit, remaining int64
	window           time.Duration
}

// left is how many counted requests are left, those under way included.
func (b *budget) left(now time.Time) int64 {
	switch {
	case b.limit == 0:
		return math.MaxInt64
	case !now.Before(b.stated.Add(b.window)):
		return b.limit
	}
	return b.remaining
}

// reopens is how long it takes until the next window at the latest.
func (b *budget) reopens(now time.Time) time.Duration { return b.stated.Add(b.window).Sub(now) }

// look reports whether something may be asked now, or, if it is paced, within its patience. If not, wait is how long it has to wait
// at least; 0: until something that is under way is answered. What is dispensable and would touch the reserve has the rest of
// the window to wait.
func (b *budget) look(now time.Time, w want, reserve int64) (wait time.Duration, ok bool) {
	if !b.governed {
		return 0, true
	}
	if wait, ok := b.all[w.traffic].look(now); !ok {
		return wait, false
	}
	if w.counted {
		if wait, ok := b.spent.look(now); !ok {
			return wait, false
		}
		left := b.left(now)
		if w.dispensable && left-b.flying <= reserve {
			return max(b.reopens(now), 0), false
		}
		if b.flying >= max(left, 1) {
			return 0, false
		}
	}
	if !b.paced[w.traffic] {
		return 0, true
	}
	wait = b.pace.wait(now)
	return wait, wait <= w.patience
}

// take counts a request that look has let pass. It is followed by settle.
func (b *budget) take(now time.Time, w want) ticket {
	t := ticket{traffic: w.traffic, counted: w.counted, began: now, all: b.all[w.traffic].take()}
	if b.paced[w.traffic] {
		t.began = now.Add(b.pace.wait(now)) // its place in the row is sure: nobody overtakes who waits for the pace
	}
	if w.counted {
		t.spent = b.spent.take()
		b.flying++
	}
	b.charge(w.traffic)
	return t
}

// shut reports whether a request that waited for the pace must not be made any more.
func (b *budget) shut(t ticket) bool {
	return t.all == 0 && b.all[t.traffic].streak > 0 || t.counted && t.spent == 0 && b.spent.streak > 0
}

// charge counts a request that nobody waits for leave to make: each that was let pass, and what it takes besides, as a token.
func (b *budget) charge(t traffic) {
	if b.paced[t] {
		b.pace.take()
	}
}

// settle learns from what became of a request. It reports whether that is the beginning of a time in which all, or all that is
// counted, has to wait.
func (b *budget) settle(now time.Time, t ticket, l limits) (news bool) {
	if t.counted {
		b.flying--
	}
	all := &b.all[t.traffic]
	b.spent.end(t.spent)
	all.end(t.all)
	b.governed = b.governed || l.throttled || l.stated
	before := b.left(now)
	// Answers may overtake each other: a higher remainder that was asked for before the lower came is the older one.
	if l.stated && (l.remaining <= before || !t.began.Before(b.stated)) {
		b.limit, b.remaining, b.window, b.stated = l.limit, l.remaining, l.window, now
	} else if t.counted && l.came && !l.throttled && b.limit > 0 {
		b.remaining = max(0, before-1)
	}
	if b.left(now) > 0 && l.stated {
		b.spent.open(t.began, t.spent)
	}
	switch {
	case l.throttled && t.counted && b.left(now) == 0:
		all.open(t.began, t.all) // that is not why
		return b.spent.shut(now, t.began, t.spent, l.retryAfter)
	case l.throttled:
		news = all.shut(now, t.began, t.all, l.retryAfter)
		if news && (b.paced[t.traffic] || b.pace.rate == 0) { // else there were too many because this traffic did not keep to the pace
			b.pace.slow(now)
		}
		b.paced[t.traffic] = b.paced[t.traffic] || news
		return news
	case l.came:
		b.pace.answered(now)
		all.open(t.began, t.all)
		if t.counted {
			b.spent.open(t.began, t.spent)
		}
	}
	return false
}

// holds is for how much longer something is held back after a 429.
func (b *budget) holds(now time.Time) time.Duration {
	longest, _ := b.spent.look(now)
	for i := range b.all {
		wait, _ := b.all[i].look(now)
		longest = max(longest, wait)
	}
	return longest
}

// hold is a time in which nothing is asked, because of a 429. When it is over one request tries, and the others wait for what
// becomes of that: so each 429 costs one request, however many are waiting. The zero value holds nothing.
type hold struct {
	streak       int // 429s in a row; 0: nothing is held
	since, until time.Time
	trial        int // the request that tries; 0: none
	trials       int // ever: a trial that ends late is not taken for the one under way
}

func (h *hold) look(now time.Time) (wait time.Duration, ok bool) {
	switch {
	case h.streak == 0:
		return 0, true
	case now.Before(h.until):
		return h.until.Sub(now), false
	}
	return 0, h.trial == 0
}

func (h *hold) take() (trial int) {
	if h.streak == 0 {
		return 0
	}
	h.trials++
	h.trial = h.trials
	return h.trial
}

func (h *hold) end(trial int) {
	if trial != 0 && h.trial == trial {
		h.trial = 0
	}
}

// shut takes a 429 down, and reports whether it is the first. One to what had been asked before the hold began says nothing
// new: where a hundred were under way, their 429s are one.
func (h *hold) shut(now, began time.Time, trial int, stated time.Duration) (first bool) {
	if h.streak > 0 && trial == 0 && !began.After(h.since) {
		if until := now.Add(stated); until.After(h.until) {
			h.until = until
		}
		return false
	}
	if stated <= 0 {
		stated = min(firstHold<<min(h.streak, 10), lastHold)
	}
	h.streak++
	h.since, h.until = now, now.Add(stated)
	return h.streak == 1
}

// open ends the hold, if what was answered had been asked since it began.
func (h *hold) open(began time.Time, trial int) {
	if trial != 0 || began.After(h.since) {
		h.streak = 0
	}
}
