package bandwidth

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlowsShareEqually(t *testing.T) {
	for _, rate := range []int64{64_000, 1_000_000, 125_000_000} {
		for name, takers := range map[string]func(Lines) (a, b []*taker){
			"unlike chunks": func(ls Lines) (a, b []*taker) {
				return []*taker{{lines: ls, flow: "a", chunk: ls.Portion() / 4}}, []*taker{{lines: ls, flow: "b", chunk: ls.Portion() * 4}}
			},
			"unlike connections": func(ls Lines) (a, b []*taker) {
				for range 7 {
					a = append(a, &taker{lines: ls, flow: "a"})
				}
				return a, []*taker{{lines: ls, flow: "b"}}
			},
			"all of it": func(ls Lines) (a, b []*taker) {
				for range 7 {
					a = append(a, &taker{lines: ls, flow: "a", chunk: ls.Portion() * 4})
				}
				return a, []*taker{{lines: ls, flow: "b", chunk: ls.Portion() / 4}}
			},
		} {
			t.Run(fmt.Sprintf("%s at %d a second", name, rate), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a, b := takers(Lines{NewLine(rate)})
					during(t, 20*time.Second, append(a, b...)...)
					if got, other := sum(a), sum(b); !near(got, other, 0.1) || !near(got+other, 20*rate, 0.1) {
						t.Errorf("%d and %d bytes", got, other)
					}
				})
			})
		}
	}
}

func sum(all []*taker) (n int64) {
	for _, tk := range all {
		n += tk.taken.Load()
	}
	return n
}

func TestWhoComesLateHasItsShareFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		ls := Lines{NewLine(rate)}
		early, late := &taker{lines: ls, flow: "early"}, &taker{lines: ls, flow: "late", after: 10 * time.Second}
		during(t, 10*time.Second, early)
		alone := early.taken.Load()
		if !near(alone, 10*rate, 0.05) {
			t.Errorf("alone it had %d bytes", alone)
		}
		during(t, 20*time.Second, early, late)
		if a, b := early.taken.Load()-alone, late.taken.Load(); !near(a, 15*rate, 0.05) || !near(b, 5*rate, 0.05) {
			t.Errorf("%d and %d bytes", a, b)
		}
	})
}

// What has gathered in a pause goes to who is quick; the others have as much before that one has more.
func TestWhoMissesABurstMakesUpForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		ls := Lines{NewLine(rate)}
		slow, quick := &taker{lines: ls, flow: "slow"}, &taker{lines: ls, flow: "quick"}
		during(t, time.Second, slow, quick)
		before := slow.taken.Load() - quick.taken.Load()
		for range 10 {
			<-time.After(burst) // nobody runs
			for range 20 {
				ls.Take(t.Context(), quick.flow, 4<<10)
			}
			during(t, burst, slow, quick)
			before += 20 * 4 << 10
		}
		if d := slow.taken.Load() - quick.taken.Load() - before; d < -16<<10 || d > 16<<10 {
			t.Errorf("the slow one has %d bytes more", d)
		}
	})
}

func TestWhoPausesSavesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		ls := Lines{NewLine(rate)}
		steady, other := &taker{lines: ls, flow: "steady"}, &taker{lines: ls, flow: "other"}
		during(t, 10*time.Second, steady, other)
		during(t, 100*time.Second, steady)
		before, had := steady.taken.Load(), other.taken.Load()
		during(t, 10*time.Second, steady, other)
		if a, b := steady.taken.Load()-before, other.taken.Load()-had; !near(a, 5*rate, 0.05) || !near(b, 5*rate, 0.05) {
			t.Errorf("%d and %d bytes", a, b)
		}
	})
}

// What waits for its own line neither blocks nor empties the one that it shares with others.
func TestNestedLines(t *testing.T) {
	for _, tt := range []struct {
		name          string
		own, total    int64
		narrow, other int64 // what the flow in its own line gets a second, and what the other one does
	}{
		{"the own line is the narrow one", 100_000, 1_000_000, 100_000, 900_000},
		{"by far", 8_000, 10_000_000, 8_000, 9_992_000},
		{"the total is", 900_000, 1_000_000, 500_000, 500_000},
		{"both are", 500_000, 1_000_000, 500_000, 500_000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				total := NewLine(tt.total)
				narrow := &taker{lines: Lines{NewLine(tt.own), total}, flow: "narrow"}
				other := &taker{lines: Lines{nil, total}, flow: "other"}
				during(t, 100*time.Second, narrow, other)
				if a, b := narrow.taken.Load(), other.taken.Load(); !near(a, 100*tt.narrow, 0.05) || !near(b, 100*tt.other, 0.05) {
					t.Errorf("%d and %d bytes a second", a/100, b/100)
				}
			})
		})
	}
}

func TestFlowsOfANarrowLineLeaveTheRestToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, total := NewLine(200_000), NewLine(1_000_000)
		var narrow []*taker
		for i := range 16 {
			narrow = append(narrow, &taker{lines: Lines{own, total}, flow: Flow(fmt.Sprint(i))})
		}
		other := &taker{lines: Lines{nil, total}, flow: "other"}
		during(t, 100*time.Second, append(narrow, other)...)
		if a, b := sum(narrow), other.taken.Load(); !near(a, 20_000_000, 0.05) || !near(b, 80_000_000, 0.05) {
			t.Errorf("%d and %d bytes a second", a/100, b/100)
		}
	})
}

// Who takes a little often, as a client does whose own network is slow, is never away, and saves nothing up all the same.
func TestWhoTakesLittleSavesNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		ls := Lines{NewLine(rate)}
		steady, slow := &taker{lines: ls, flow: "steady"}, &taker{lines: ls, flow: "slow", pause: burst / 2}
		during(t, 60*time.Second, steady, slow)
		before, had := steady.taken.Load(), slow.taken.Load()
		slow.pause = 0
		during(t, 10*time.Second, steady, slow)
		if a, b := steady.taken.Load()-before, slow.taken.Load()-had; !near(a, 5*rate, 0.1) || !near(b, 5*rate, 0.1) {
			t.Errorf("%d and %d bytes", a, b)
		}
	})
}
