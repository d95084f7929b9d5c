package bandwidth

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// taker takes so many bytes at a time, one time after the other, from lines.
type taker struct {
	lines Lines
	flow  Flow
	chunk int // 0: the lines' portion
	pause time.Duration
	after time.Duration // when it begins
	taken atomic.Int64
}

func (tk *taker) run(ctx context.Context) {
	for wait := tk.after; ; wait = tk.pause {
		if wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		chunk := tk.chunk
		if chunk == 0 {
			chunk = tk.lines.Portion()
		}
		if ctx.Err() != nil || tk.lines.Take(ctx, tk.flow, chunk) != nil {
			return
		}
		tk.taken.Add(int64(chunk))
	}
}

// during has takers take for so long.
func during(t *testing.T, d time.Duration, all ...*taker) {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	var wg sync.WaitGroup
	for _, tk := range all {
		wg.Go(func() { tk.run(ctx) })
	}
	wg.Wait()
}

// near reports whether a value is within a share of what is wanted.
func near(got, want int64, share float64) bool {
	return math.Abs(float64(got-want)) <= share*float64(want)
}

func TestRateIsKept(t *testing.T) {
	for _, rate := range []int64{64_000, 1_000_000, 20_000_000, 125_000_000, 1_250_000_000} {
		for _, flows := range []int{1, 8, 64} {
			for _, chunk := range []int{0, 1 << 10, 32 << 10} {
				if chunk > 0 && rate/int64(chunk) > 4_000 {
					continue // takes too many of them
				}
				t.Run(fmt.Sprintf("%d flows, %d at %d a second", flows, chunk, rate), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						line := NewLine(rate)
						var all []*taker
						for i := range flows {
							all = append(all, &taker{lines: Lines{line}, flow: Flow(fmt.Sprint(i)), chunk: chunk})
						}
						seconds := int64(60)
						if rate > 1_000_000 {
							seconds = 10
						}
						during(t, time.Duration(seconds)*time.Second, all...)
						var sum int64
						for _, tk := range all {
							sum += tk.taken.Load()
						}
						// What waits for the rest of a chunk at the end has not been counted.
						open := int64(flows * max(chunk, line.Portion()))
						if sum > rate*seconds+rate/10 || sum < rate*seconds-open || open < rate && !near(sum, rate*seconds, 0.05) {
							t.Errorf("%d bytes in %d s", sum, seconds)
						}
					})
				})
			}
		}
	}
}

// In no stretch of time passes more than the rate allows and a burst, whatever is asked for and by whom.
func TestNothingExceedsTheRateAndABurst(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			const rate = 1_000_000
			random := rand.New(rand.NewPCG(seed, 1))
			line := NewLine(rate)
			var mu sync.Mutex
			var at []time.Time
			var passed []int
			var wg sync.WaitGroup
			for i := range 10 {
				chunks, pauses := make([]int, 200), make([]time.Duration, 200)
				for k := range chunks {
					chunks[k], pauses[k] = 1+random.IntN(20<<10), time.Duration(random.IntN(40_000_000))
				}
				wg.Go(func() {
					for k, n := range chunks {
						<-time.After(pauses[k])
						ctx, cancel := context.WithTimeout(t.Context(), 2*pauses[k])
						if line.Take(ctx, Flow(fmt.Sprint(i%4)), n) == nil {
							mu.Lock()
							at, passed = append(at, time.Now()), append(passed, n)
							mu.Unlock()
						}
						cancel()
					}
				})
			}
			wg.Wait()
			// Each Take may have been granted all but its last portion before the time that is noted.
			const before = 10 * 20 << 10
			for i := range at {
				sum := 0
				for k := i; k < len(at); k++ {
					sum += passed[k]
					if most := at[k].Sub(at[i]).Seconds()*rate + rate/10 + before; float64(sum) > most {
						t.Fatalf("seed %d: %d bytes in %v", seed, sum, at[k].Sub(at[i]))
					}
				}
			}
			if len(at) < 500 {
				t.Errorf("seed %d: only %d were granted", seed, len(at))
			}
		})
	}
}

func TestNewRateIsObeyedByThoseWhoWait(t *testing.T) {
	const n = 100_000
	for _, tt := range []struct {
		name          string
		before, after int64
		least, most   time.Duration // from the change on
	}{
		// A second of the old rate and the burst have been granted, the rest comes at the new rate.
		{"more", 10_000, 100_000, 850 * time.Millisecond, 900 * time.Millisecond},
		// Of what it waits for a portion is left, of which some may be there already.
		{"less", 40_000, 10_000, 0, minPortion * time.Second / 10_000},
		{"unlimited", 10_000, 0, 0, 0},
		{"unlimited, said otherwise", 10_000, -1, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line := NewLine(tt.before)
				var changed time.Time
				time.AfterFunc(time.Second, func() { changed = time.Now(); line.SetRate(tt.after) })
				if err := line.Take(t.Context(), "a", n); err != nil || changed.IsZero() {
					t.Fatal(err, changed)
				}
				if took := time.Since(changed); took < tt.least || took > tt.most {
					t.Errorf("after the change it took %v, want %v to %v", took, tt.least, tt.most)
				}
			})
		})
	}
}

func TestLimitThatComesLaterIsObeyedFromTheNextOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(0)
		tk := &taker{lines: Lines{line}, flow: "a", chunk: 1000, pause: time.Millisecond}
		time.AfterFunc(10*time.Second, func() { line.SetRate(10_000) })
		during(t, 30*time.Second, tk)
		if got := tk.taken.Load(); !near(got, 10_000_000+200_000, 0.002) {
			t.Errorf("%d bytes", got)
		}
	})
}

// A limit that is switched on and off by many, while many take, lets go of everybody in the end.
func TestRatesChangeWhileAllTake(t *testing.T) {
	lines := Lines{NewLine(1_000_000), NewLine(0)}
	ctx, cancel := context.WithCancel(t.Context())
	var takers, setters sync.WaitGroup
	var rounds atomic.Int64
	for i := range 8 {
		takers.Go(func() {
			for lines.Take(ctx, Flow(fmt.Sprint(i%3)), 1+i*5000) == nil {
				lines.Spend(i)
				rounds.Add(1)
			}
		})
	}
	for i := range 2 {
		setters.Go(func() {
			for k := range 2000 {
				lines[i].SetRate([]int64{0, 1 << 10, 1 << 40, 1 << 30}[k%4])
			}
		})
	}
	setters.Wait()
	lines[0].SetRate(0)
	lines[1].SetRate(0)
	for before := rounds.Load(); rounds.Load() < before+100; {
		if err := lines.Take(ctx, "test", 1<<40); err != nil { // yields
			t.Fatal(err)
		}
	}
	cancel()
	lines[0].SetRate(1)
	takers.Wait()
	for i, l := range lines {
		if s := l.Stats(); s.Waiting != 0 {
			t.Errorf("line %d: %+v", i, s)
		}
	}
}

func TestWhoLeavesGivesBackWhatItWasGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("client left")
		narrow, wide := NewLine(100_000), NewLine(1_000)
		if err := wide.Take(t.Context(), "other", minPortion); err != nil { // its burst
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		start := time.Now()
		if err := (Lines{narrow, wide}).Take(ctx, "a", 10_000); !errors.Is(err, why) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		for name, l := range map[string]*Line{"narrow": narrow, "wide": wide} {
			if s := l.Stats(); s.Waiting > 0 {
				t.Errorf("%s: %+v", name, s)
			}
		}
		start = time.Now()
		if narrow.Take(t.Context(), "b", 10_000); time.Since(start) > 0 {
			t.Errorf("the narrow line is short of bytes for %v", time.Since(start))
		}
		if wide.Take(t.Context(), "b", 1_000); time.Since(start) > time.Millisecond {
			t.Errorf("the wide line is short of bytes for %v", time.Since(start))
		}
	})
}

func TestLimitEndsWhenSomebodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limited atomic.Bool
		limited.Store(true)
		line := NewLine(1 << 10)
		timed := func(n int) time.Duration {
			start := time.Now()
			if err := line.TakeWhile(t.Context(), "a", n, limited.Load); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if took := timed(32<<10 + minPortion); took < 32*time.Second || took > 33*time.Second {
			t.Errorf("limited, it took %v", took)
		}
		time.AfterFunc(10500*time.Millisecond, func() { limited.Store(false) })
		if took := timed(32 << 10); took != 11*time.Second {
			t.Errorf("it waited %v, though the limit was off after 10.5s", took)
		}
		if took := timed(1 << 30); took != 0 {
			t.Errorf("unlimited, it took %v", took)
		}
		limited.Store(true)
		if took := timed(32 << 10); took > 33*time.Second {
			t.Errorf("the place that was given up still cost something: %v", took)
		}
	})
}

func TestWhatIsSpentIsPaidForByThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		line := NewLine(rate)
		tk := &taker{lines: Lines{line}, flow: "a"}
		spent := int64(0)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				if line.Spend(50_000); time.Since(start) > 0 {
					t.Errorf("it waited for %v", time.Since(start))
				}
				spent += 50_000
				<-time.After(100 * time.Millisecond)
			}
		})
		during(t, 20*time.Second, tk)
		cancel()
		wg.Wait()
		if got := tk.taken.Load(); !near(got+spent, 20*rate, 0.05) || !near(got, 10*rate, 0.1) {
			t.Errorf("%d bytes were taken and %d spent", got, spent)
		}
		<-time.After(2 * time.Second)
		if err := line.Take(t.Context(), "a", rate/10); err != nil { // the burst
			t.Error(err)
		}
		line.Spend(1 << 40) // no more than a second's worth is owed, and paid by half of what comes
		start := time.Now()
		if line.Take(t.Context(), "a", 10_000); time.Since(start).Round(time.Millisecond) != 20*time.Millisecond {
			t.Errorf("a Take waited %v", time.Since(start))
		}
		<-time.After(2 * time.Second)
		start = time.Now()
		if line.Take(t.Context(), "a", rate/10); time.Since(start) > 0 {
			t.Errorf("two seconds later a Take waited %v", time.Since(start))
		}
	})
}

func TestFloodOfWhatIsSpentLeavesHalfOfTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		line := NewLine(rate)
		tk := &taker{lines: Lines{line}, flow: "a"}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				line.Spend(3 * rate / 100)
				<-time.After(10 * time.Millisecond)
			}
		})
		during(t, 20*time.Second, tk)
		wg.Wait()
		if got := tk.taken.Load(); !near(got, 10*rate, 0.05) {
			t.Errorf("%d bytes were taken", got)
		}
	})
}

func TestFlowsThatAreGoneAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(1_000_000)
		come := func(wave int) {
			for i := range 100 {
				line.Take(t.Context(), Flow(fmt.Sprint(wave, " ", i)), 100)
			}
		}
		for wave := range 100 { // nobody waits
			come(wave)
			<-time.After(time.Second)
		}
		var coming sync.WaitGroup
		coming.Go(func() {
			for wave := range 100 {
				come(1000 + wave)
				<-time.After(time.Second)
			}
		})
		var all []*taker
		for i := range 10 {
			all = append(all, &taker{lines: Lines{line}, flow: Flow(fmt.Sprint("steady", i))})
		}
		during(t, 200*time.Second, all...)
		coming.Wait()
		if n := len(line.flows); n > 500 {
			t.Errorf("%d flows are known", n)
		}
	})
}

func TestUnlimitedLinesCostNothing(t *testing.T) {
	var none *Line
	for _, l := range []*Line{none, NewLine(0), NewLine(-1)} {
		if err := l.Take(t.Context(), "a", 1<<40); err != nil || l.Rate() != 0 || l.Portion() != maxPortion || l.Stats() != (Stats{}) {
			t.Errorf("%v, %d, %d, %+v", err, l.Rate(), l.Portion(), l.Stats())
		}
		l.Spend(1 << 40)
		if n := testing.AllocsPerRun(100, func() { l.Take(t.Context(), "a", 1) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func TestStatsTellWhoWaitsAndForHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(1_000)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { line.Take(t.Context(), "a", minPortion) })
		}
		synctest.Wait()
		if s := line.Stats(); s != (Stats{Rate: 1_000, Waiting: 1}) {
			t.Errorf("%+v", s)
		}
		wg.Wait()
		if s := line.Stats(); s.Waiting != 0 || s.Waited.Round(time.Millisecond) != minPortion*time.Millisecond {
			t.Errorf("%+v", s)
		}
	})
}
