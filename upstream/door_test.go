package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestDoorAgainstModel lets crowds come, wait, leave and be answered at random while the door is shut and opened. No more pass than
// may, nobody waits who may pass, and, as synctest sees to it, nobody waits for ever.
func TestDoorAgainstModel(t *testing.T) {
	var ends doorEnds
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) { modelDoor(t, rand.New(rand.NewPCG(seed, 1)), &ends) })
	}
	if ends.passed.Load() == 0 || ends.turnedAway.Load() == 0 || ends.left.Load() == 0 {
		t.Errorf("not all of it was tried: %d passed, %d were turned away, %d left", ends.passed.Load(), ends.turnedAway.Load(), ends.left.Load())
	}
}

// doorEnds counts how visits of a door ended.
type doorEnds struct{ passed, turnedAway, left atomic.Int64 }

func modelDoor(t *testing.T, rng *rand.Rand, ends *doorEnds) {
	var d door
	var waiting, within, answered atomic.Int64
	answered.Store(-int64(time.Hour))
	start := time.Now()
	var crowd sync.WaitGroup
	visit := func(rng *rand.Rand) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rng.IntN(8000))*time.Millisecond)
		defer cancel()
		waiting.Add(1)
		err := d.enter(ctx)
		waiting.Add(-1)
		switch {
		case errors.Is(err, ErrDown):
			ends.turnedAway.Add(1)
			return
		case err != nil:
			ends.left.Add(1)
			return
		}
		ends.passed.Add(1)
		if n := within.Add(1); n > atOnce && time.Since(start)-time.Duration(answered.Load()) >= lately {
			t.Errorf("%d within, and nobody has answered lately", n)
		}
		pause(t.Context(), time.Duration(rng.IntN(3000))*time.Millisecond)
		well := rng.IntN(4) == 0
		within.Add(-1)
		if well {
			answered.Store(int64(time.Since(start)))
		}
		d.leave(well)
	}
	for range 60 {
		own := rand.New(rand.NewPCG(rng.Uint64(), 2))
		crowd.Go(func() {
			for range 10 {
				pause(t.Context(), time.Duration(own.IntN(2000))*time.Millisecond)
				visit(own)
			}
		})
	}
	for range 200 {
		pause(t.Context(), time.Duration(rng.IntN(200))*time.Millisecond)
		switch n := rng.IntN(40); {
		case n == 0:
			d.shutFor(errors.New("gone"), time.Now())
		case n < 8:
			d.open()
		}
		synctest.Wait()
		d.mu.Lock()
		if n := waiting.Load(); n > 0 && (d.shut != nil || d.inside < atOnce || d.changed == nil) {
			t.Errorf("%d wait at a door with %d within, shut: %v", n, d.inside, d.shut)
		}
		d.mu.Unlock()
	}
	d.open()
	crowd.Wait()
	if d.inside != 0 || d.changed != nil {
		t.Errorf("%d within, and %v, when all are gone", d.inside, d.changed)
	}
}

func TestDoorLetsAllPassOnceSomebodyAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d door
		var crowd sync.WaitGroup
		var passed atomic.Int64
		for range 100 {
			crowd.Go(func() {
				if d.enter(t.Context()) == nil {
					passed.Add(1)
				}
			})
		}
		expect := func(want int64) {
			t.Helper()
			synctest.Wait()
			if n := passed.Load(); n != want {
				t.Errorf("%d have passed, want %d", n, want)
			}
		}
		expect(atOnce)
		d.leave(false)
		expect(atOnce + 1)
		d.leave(true)
		expect(100)
		crowd.Wait()
	})
}

func TestDoorThatShutsTurnsAllAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d door
		results := make(chan error, 100)
		for range 100 {
			go func() { results <- d.enter(t.Context()) }()
		}
		synctest.Wait()
		d.shutFor(errors.New("gone"), time.Now())
		passed, down := 0, 0
		for range 100 {
			switch err := <-results; {
			case err == nil:
				passed++
			case errors.Is(err, ErrDown):
				down++
			}
		}
		if passed != atOnce || down != 100-atOnce {
			t.Errorf("%d passed, %d were turned away", passed, down)
		}
	})
}

// TestDoorStaysOpenToWhoAnswersOthers is about a request that gets no answer while later ones do: it speaks of itself.
func TestDoorStaysOpenToWhoAnswersOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d door
		since := time.Now()
		pause(t.Context(), time.Second)
		if err := d.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.leave(true)
		d.shutFor(errors.New("time-out"), since)
		if err := d.isShut(); err != nil {
			t.Error(err)
		}
		pause(t.Context(), time.Second)
		d.shutFor(errors.New("time-out"), time.Now())
		if !errors.Is(d.isShut(), ErrDown) {
			t.Error("open to who answers nobody")
		}
	})
}
