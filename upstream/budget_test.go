package upstream

import (
	"math/rand/v2"
	"testing"
	"time"
)

var (
	epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	get   = want{counted: true}
	spare = want{counted: true, dispensable: true}
)

func after(seconds float64) time.Time {
	return epoch.Add(time.Duration(seconds * float64(time.Second)))
}

// stated is an answer that tells of a window of an hour.
func stated(limit, remaining int64) limits {
	return limits{came: true, stated: true, limit: limit, remaining: remaining, window: time.Hour}
}

func expectLook(t *testing.T, b *budget, now time.Time, w want, reserve int64, wait time.Duration, ok bool) {
	t.Helper()
	if gotWait, gotOK := b.look(now, w, reserve); gotWait != wait || gotOK != ok {
		t.Errorf("%s after the start, %+v: %s %v, want %s %v", now.Sub(epoch), w, gotWait, gotOK, wait, ok)
	}
}

func TestBudgetThatIsNotStatedHoldsNothing(t *testing.T) {
	var b budget
	for i := range 1000 {
		expectLook(t, &b, after(0), get, 10, 0, true)
		ticket := b.take(after(0), get)
		if i%2 == 0 {
			b.settle(after(1), ticket, limits{came: true})
		}
	}
	expectLook(t, &b, after(2), spare, 10, 0, true)
}

func TestBudgetIsSpentOneByOne(t *testing.T) {
	var b budget
	b.settle(after(0), b.take(after(0), get), stated(100, 3))
	expectLook(t, &b, after(1), spare, 2, 0, true)
	expectLook(t, &b, after(1), spare, 3, time.Hour-time.Second, false)
	var tickets []ticket
	for range 3 {
		expectLook(t, &b, after(1), get, 3, 0, true)
		tickets = append(tickets, b.take(after(1), get))
	}
	expectLook(t, &b, after(1), get, 0, 0, false) // until one of those is answered
	expectLook(t, &b, after(1), want{}, 0, 0, true)
	b.settle(after(2), tickets[0], stated(100, 0)) // the one that was counted last is answered first
	b.settle(after(2), tickets[1], stated(100, 2))
	if b.remaining != 0 {
		t.Errorf("an answer that was overtaken counts: %d left", b.remaining)
	}
	expectLook(t, &b, after(3), get, 0, 0, false)
	b.settle(after(3), tickets[2], limits{}) // which was given up
	expectLook(t, &b, after(3), spare, 0, time.Hour-time.Second, false)
	expectLook(t, &b, after(3), get, 0, 0, true) // it may find out that there is more
	last := b.take(after(3), get)
	expectLook(t, &b, after(3), get, 0, 0, false)
	b.settle(after(4), last, limits{came: true, throttled: true, retryAfter: time.Minute})
	expectLook(t, &b, after(5), get, 0, time.Minute-time.Second, false)
	expectLook(t, &b, after(5), want{}, 0, 0, true)
	b.settle(after(10), b.take(after(9), want{}), stated(100, 50)) // a HEAD tells that there is more
	expectLook(t, &b, after(10), get, 0, 0, true)
	b.settle(after(12), b.take(after(11), want{}), stated(100, 0))
	if n := b.left(after(12 + 3600)); n != 100 {
		t.Errorf("%d left in the next window", n)
	}
}

func TestHoldIsEndedByOneTrial(t *testing.T) {
	var b budget
	head, refused := want{}, limits{came: true, throttled: true}
	early := []ticket{b.take(after(0), head), b.take(after(0), head), b.take(after(0), head)}
	for i, ticket := range early {
		if news := b.settle(after(1), ticket, refused); news != (i == 0) {
			t.Errorf("429 %d to what was asked at once: news is %v", i, news)
		}
	}
	now := 1.0
	for _, seconds := range []float64{1, 2, 4, 8, 16, 32, 60, 60} {
		expectLook(t, &b, after(now), head, 0, time.Duration(seconds)*time.Second, false)
		expectLook(t, &b, after(now), want{traffic: blobs}, 0, 0, true)
		now += seconds
		patient := want{patience: time.Hour}
		if _, ok := b.look(after(now), patient, 0); !ok {
			t.Fatalf("no trial after %vs", seconds)
		}
		trial := b.take(after(now), patient)
		expectLook(t, &b, after(now), head, 0, 0, false)
		b.settle(after(now), trial, refused)
	}
	now += 60
	trial := b.take(after(now), head)
	b.settle(after(now), trial, limits{}) // the caller left
	if _, ok := b.look(after(now), want{patience: time.Hour}, 0); !ok {
		t.Error("nobody may try after one who gave up")
	}
	trial = b.take(after(now), head)
	b.settle(after(now), trial, limits{came: true})
	if b.all[small].streak != 0 || b.holds(after(now)) != 0 {
		t.Errorf("%+v", b.all[small])
	}
}

func TestPaceIsHalfOfWhatWasAnswered(t *testing.T) {
	var b budget
	head, patient := want{}, want{patience: time.Hour}
	for range 40 {
		b.settle(after(0), b.take(after(0), head), limits{came: true})
	}
	b.settle(after(0.5), b.take(after(0), head), limits{came: true, throttled: true})
	b.settle(after(2), b.take(after(2), patient), limits{came: true})
	var last time.Time
	for range 60 {
		last = b.take(after(2), patient).began
	}
	if took := last.Sub(after(2)); took < 1900*time.Millisecond || took > 2100*time.Millisecond {
		t.Errorf("60 requests at 20 a second, of which 19 may come at once, take %s", took)
	}
	if _, ok := b.look(after(2), head, 0); ok {
		t.Error("who has no patience gets in between")
	}
	if rate := b.pace.at(after(0.5 + 60)); rate < 39.9 || rate > 40.1 {
		t.Errorf("%v a second after a minute", rate)
	}
	if wait := b.pace.wait(after(0.5 + 600)); wait != 0 || b.pace.rate != 0 {
		t.Errorf("%s at %v a second after ten minutes", wait, b.pace.rate)
	}
}

// TestBudgetKeepsItsBounds has requests begin and end at random, at a registry that counts.
func TestBudgetKeepsItsBounds(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		var b budget
		var flying []ticket
		const limit = 20
		now, used, ends := epoch, int64(0), epoch.Add(time.Hour)
		for range 500 {
			now = now.Add(time.Duration(rng.IntN(20)) * time.Second)
			if !now.Before(ends) {
				used, ends = 0, now.Add(time.Hour)
			}
			w := want{counted: rng.IntN(2) == 0, dispensable: rng.IntN(2) == 0}
			if rng.IntN(2) == 0 {
				left := b.left(now)
				if _, ok := b.look(now, w, 3); ok {
					if w.counted && w.dispensable && b.governed && left-b.flying <= 3 {
						t.Fatal("the reserve is touched")
					}
					if w.counted && b.governed && b.flying >= max(left, 1) {
						t.Fatalf("one more than %d, of %d", b.flying, left)
					}
					flying = append(flying, b.take(now, w))
				}
				continue
			}
			if len(flying) == 0 {
				continue
			}
			i := rng.IntN(len(flying))
			ticket := flying[i]
			flying = append(flying[:i], flying[i+1:]...)
			l := limits{}
			if rng.IntN(10) > 0 {
				refused := ticket.counted && used == limit
				if ticket.counted && !refused {
					used++
				}
				l = stated(limit, limit-used)
				l.throttled = refused
			}
			b.settle(now, ticket, l)
			if b.flying < 0 || b.remaining < 0 {
				t.Fatalf("%+v", b)
			}
		}
		for _, ticket := range flying {
			b.settle(now, ticket, limits{})
		}
		if b.flying != 0 || b.spent.trial != 0 || b.all[small].trial != 0 {
			t.Fatalf("something is left under way: %+v", b)
		}
	}
}
