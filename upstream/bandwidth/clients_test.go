package bandwidth

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func address(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

// send has a client be sent to over so many connections, and returns what each address got in so much time.
func send(t *testing.T, c *Clients, d time.Duration, connections ...int) []int64 {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	sent := make([]int64, len(connections))
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i, n := range connections {
		for range n {
			wg.Go(func() {
				one := c.Join(address(i))
				defer one.Leave()
				for {
					n := one.Portion()
					if one.Take(ctx, n) != nil {
						return
					}
					mu.Lock()
					sent[i] += int64(n)
					mu.Unlock()
				}
			})
		}
	}
	wg.Wait()
	return sent
}

func TestClientsShareByAddress(t *testing.T) {
	const rate = 1_000_000
	for _, tt := range []struct {
		name        string
		total, each int64
		connections []int
		want        []int64 // in a second
	}{
		{"one has more connections", rate, 0, []int{1, 8}, []int64{rate / 2, rate / 2}},
		{"each has its limit", 0, rate, []int{1, 8}, []int64{rate, rate}},
		{"each has less than its share of the total", rate, rate / 4, []int{1, 2}, []int64{rate / 4, rate / 4}},
		{"the total is less than all limits", rate, rate / 2, []int{1, 1, 4, 9}, []int64{rate / 4, rate / 4, rate / 4, rate / 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := send(t, NewClients(tt.total, tt.each), 20*time.Second, tt.connections...)
				for i, n := range got {
					if !near(n, 20*tt.want[i], 0.1) {
						t.Errorf("%v bytes in 20 s, want %v a second", got, tt.want)
					}
				}
			})
		})
	}
}

func TestEachClientsNewRateIsObeyedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(0, 1_000_000)
		time.AfterFunc(10*time.Second, func() { c.SetRate(100_000) })
		for _, n := range send(t, c, 20*time.Second, 1, 3) {
			if !near(n, 11_000_000, 0.05) {
				t.Errorf("%d bytes", n)
			}
		}
		if n := send(t, c, 20*time.Second, 0, 0, 1)[2]; !near(n, 2_000_000, 0.05) { // who comes now too
			t.Errorf("%d bytes", n)
		}
	})
}

// A client that comes back at once, again and again, has no burst each time; one that stays away is forgotten.
func TestClientsAreKnownForAsLongAsTheyHaveUsedSomethingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(0, 1_000_000)
		start := time.Now()
		for range 100 {
			one := c.Join(address(0))
			if err := one.Take(t.Context(), 100_000); err != nil {
				t.Fatal(err)
			}
			one.Leave()
			for i := range 10 { // others make it look whom to forget
				c.Join(address(1 + i)).Leave()
			}
		}
		if took := time.Since(start); took < 9900*time.Millisecond {
			t.Errorf("10 MB took %v", took)
		}
		waited := c.Stats().Waited
		for i := range 10_000 {
			one := c.Join(address(i))
			one.Take(t.Context(), 100)
			one.Leave()
			<-time.After(time.Millisecond)
		}
		if n := len(c.known); n > 500 {
			t.Errorf("%d clients are known", n)
		}
		if s := c.Stats(); s.Rate != 1_000_000 || s.Waiting != 0 || s.Waited < waited || waited < 9*time.Second {
			t.Errorf("%+v, and before it had waited %v", s, waited)
		}
	})
}

// A client that takes nothing of what it was granted keeps nobody waiting.
func TestStalledClientHoldsNothingOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClients(1_000_000, 0)
		for i := range 50 {
			stalled := c.Join(address(100 + i))
			defer stalled.Leave()
			if err := stalled.Take(t.Context(), stalled.Portion()); err != nil {
				t.Fatal(err)
			}
		}
		if n := send(t, c, 20*time.Second, 1)[0]; !near(n, 20_000_000, 0.05) {
			t.Errorf("%d bytes", n)
		}
	})
}

func TestPlanIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := NewLine(0)
		tk := &taker{lines: Lines{line}, flow: "a"}
		ctx, cancel := context.WithCancel(t.Context())
		start, asked := time.Now(), 0
		var wg sync.WaitGroup
		wg.Go(func() {
			Follow(ctx, line, func(now time.Time) (int64, time.Time) {
				asked++
				hour := int64(now.Sub(start) / time.Hour)
				return 10_000 * (1 + hour), start.Add(time.Duration(hour+1) * time.Hour)
			})
		})
		synctest.Wait()
		for hour := range int64(3) {
			before := tk.taken.Load()
			during(t, time.Until(start.Add(time.Duration(hour+1)*time.Hour)), tk)
			if got, want := tk.taken.Load()-before, 3600*10_000*(1+hour); !near(got, want, 0.01) {
				t.Errorf("%d bytes in hour %d, want %d", got, hour, want)
			}
		}
		cancel()
		wg.Wait()
		if asked < 180 || asked > 200 {
			t.Errorf("the plan was asked %d times in three hours", asked)
		}
		Follow(t.Context(), line, func(time.Time) (int64, time.Time) { return 7, time.Time{} }) // returns
		if line.Rate() != 7 {
			t.Errorf("rate %d", line.Rate())
		}
	})
}

// A plan that is late with its own end is asked again soon, and not without a pause.
func TestPlanThatStandsStillIsNotAskedWithoutAPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		asked := 0
		Follow(ctx, NewClients(0, 0), func(now time.Time) (int64, time.Time) { asked++; return 1, now })
		if asked < 900 || asked > 1001 {
			t.Errorf("%d times in a second", asked)
		}
	})
}
