package credential

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a place whose looks take a while, and bring what the test wants.
type scripted struct {
	takes time.Duration

	mu sync.Mutex
	// guards following
	looks  int
	state  int
	answer func(n int) (found, error) // of the nth look
}

func (s *scripted) version() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *scripted) look(ctx context.Context) (found, error) {
	s.mu.Lock()
	s.looks++
	f, err := s.answer(s.looks)
	s.mu.Unlock()
	select {
	case <-time.After(s.takes):
		return f, err
	case <-ctx.Done():
		return found{}, context.Cause(ctx)
	}
}

func (s *scripted) change(answer func(n int) (found, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.answer = s.state+1, answer
}

func (s *scripted) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.looks
}

// numbered answers look n with password n, of a life.
func numbered(life time.Duration) func(n int) (found, error) {
	return func(n int) (found, error) {
		return lasting(Login{Username: "ci", Password: fmt.Sprint("password-", n)}, time.Now(), life), nil
	}
}

func failing(int) (found, error) { return found{}, errors.New("broken") }

func missing(int) (found, error) { return found{}, gone{errors.New("broken")} }

// in runs a test of a source by the clock of synctest.
func in(t *testing.T, s *scripted, test func(t *testing.T, r *remembered, password func() string)) {
	synctest.Test(t, func(t *testing.T) {
		r := remember(s)
		defer r.Close()
		test(t, r, func() string {
			t.Helper()
			l, err := r.Get(t.Context())
			if err != nil {
				return err.Error()
			}
			return l.Password
		})
	})
}

// wait lets the clock go on.
func wait(t *testing.T, d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.Context().Done():
	}
	synctest.Wait()
}

func expect(t *testing.T, s *scripted, password func() string, want string, looks int) {
	t.Helper()
	if got := password(); got != want || s.count() != looks {
		t.Errorf("%s after %d looks, want %s after %d", got, s.count(), want, looks)
	}
}

func TestManyShareOneLookAndWhoLeavesDisturbsNobody(t *testing.T) {
	s := &scripted{takes: 3 * time.Second, answer: numbered(time.Hour)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		hasty, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		var all sync.WaitGroup
		all.Go(func() {
			if _, err := r.Get(hasty); !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
		synctest.Wait()
		for range 50 {
			all.Go(func() { expect(t, s, password, "password-1", 1) })
		}
		all.Wait()
	})
}

func TestRenewalIsAheadOfTheEndAndBehindEverybodysBack(t *testing.T) {
	s := &scripted{takes: 5 * time.Second, answer: numbered(12 * time.Hour)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		expect(t, s, password, "password-1", 1)
		wait(t, 10*time.Hour-time.Minute)
		expect(t, s, password, "password-1", 1)
		wait(t, time.Minute)
		before := time.Now()
		expect(t, s, password, "password-1", 1) // the look that this starts is counted later
		if time.Since(before) != 0 {
			t.Errorf("waited %v for a renewal", time.Since(before))
		}
		wait(t, 5*time.Second)
		expect(t, s, password, "password-2", 2)
	})
}

func TestRenewalThatFailsLeavesTheOldUntilItsEnd(t *testing.T) {
	s := &scripted{answer: numbered(12 * time.Hour)}
	core, logs := observer.New(zap.WarnLevel)
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		r.LogTo(zap.New(core))
		expect(t, s, password, "password-1", 1)
		s.answer = failing
		wait(t, 10*time.Hour)
		for range 119 { // somebody asks once a second
			if got := password(); got != "password-1" {
				t.Fatal(got)
			}
			wait(t, time.Second)
		}
		if n := s.count(); n < 6 || n > 9 {
			t.Errorf("%d looks in two minutes, want pauses of 1, 2, 4 … s", n)
		}
		if logs.Len() != s.count()-1 || logs.All()[0].Level != zap.WarnLevel {
			t.Errorf("logged %v", logs.All())
		}
		wait(t, 2*time.Hour)
		if got := password(); got != "broken" {
			t.Errorf("after the end: %s", got)
		}
		looks := s.count()
		for range 1000 {
			password()
		}
		if s.count() > looks+1 {
			t.Errorf("%d looks for 1000 calls at once", s.count()-looks)
		}
		s.answer = numbered(time.Hour)
		wait(t, lastPause)
		if got := password(); !strings.HasPrefix(got, "password-") {
			t.Errorf("when it works again: %s", got)
		}
	})
}

func TestRefusalHasItLookAgainButNotInALoop(t *testing.T) {
	for name, answer := range map[string]func(n int) (found, error){
		"the same each time": func(int) (found, error) {
			return lasting(Login{Username: "ci", Password: "password-1"}, time.Now(), time.Hour), nil
		},
		"another each time": numbered(time.Hour),
	} {
		t.Run(name, func(t *testing.T) {
			s := &scripted{answer: answer}
			in(t, s, func(t *testing.T, r *remembered, password func() string) {
				for range 600 {
					l, err := r.Get(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					r.Refused(l)
					wait(t, time.Second)
				}
				if n := s.count(); n < 3 || n > 20 {
					t.Errorf("%d looks in ten minutes of refusals", n)
				}
			})
		})
	}
}

func TestRefusalOfTheOldLeavesTheNewAlone(t *testing.T) {
	s := &scripted{answer: numbered(time.Hour)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		old, _ := r.Get(t.Context())
		r.Refused(old)
		expect(t, s, insteadOf(t, r, old), "password-2", 2)
		expect(t, s, password, "password-2", 2)
		r.Refused(old)
		r.Refused(Login{})
		expect(t, s, password, "password-2", 2)
	})
}

func TestRefusalDuringALookIsLookedInto(t *testing.T) {
	s := &scripted{takes: 10 * time.Second, answer: func(n int) (found, error) {
		return lasting(Login{Password: fmt.Sprint("password-", max(n-1, 1))}, time.Now(), 12*time.Hour), nil // the second look comes too early
	}}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		old, _ := r.Get(t.Context())
		wait(t, 10*time.Hour)
		password() // starts the second
		synctest.Wait()
		r.Refused(old)
		expect(t, s, insteadOf(t, r, old), "password-2", 3)
	})
}

// insteadOf is the password that who was refused gets.
func insteadOf(t *testing.T, r *remembered, refused Login) func() string {
	return func() string {
		l, err := r.Get(Instead(t.Context(), refused))
		if err != nil {
			return err.Error()
		}
		return l.Password
	}
}

func TestChangeIsSeenAtOnceAndWhatIsGoneKeptAMoment(t *testing.T) {
	s := &scripted{answer: func(n int) (found, error) { return found{login: Login{Password: fmt.Sprint("password-", n)}}, nil }}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		expect(t, s, password, "password-1", 1)
		wait(t, 1000*time.Hour)
		expect(t, s, password, "password-1", 1)
		well := s.answer
		s.change(well)
		expect(t, s, password, "password-2", 2)
		s.change(failing)
		expect(t, s, password, "password-2", 3) // a failure that says nothing of the old one
		wait(t, 1000*time.Hour)
		if got := password(); got != "password-2" {
			t.Errorf("long after a failure: %s", got)
		}
		looks := s.count()
		s.change(missing)
		expect(t, s, password, "password-2", looks+1)
		s.change(well) // although a look has failed just now
		latest := fmt.Sprint("password-", looks+2)
		expect(t, s, password, latest, looks+2)
		s.change(missing)
		expect(t, s, password, latest, looks+3)
		wait(t, grace/2)
		expect(t, s, password, latest, looks+3)
		wait(t, grace)
		if got := password(); got != "broken" {
			t.Errorf("a minute after the end: %s", got)
		}
	})
}

func TestHangingLookEnds(t *testing.T) {
	s := &scripted{takes: time.Hour, answer: numbered(time.Hour)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		before := time.Now()
		if got := password(); got != errSlow.Error() || time.Since(before) != lookTimeout {
			t.Errorf("%s after %v", got, time.Since(before))
		}
	})
}

func TestCloseEndsALookAndKeepsWhatIsThere(t *testing.T) {
	s := &scripted{answer: numbered(time.Hour)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		password()
		s.takes = time.Hour
		wait(t, 50*time.Minute)
		password()
		before := time.Now()
		r.Close()
		if time.Since(before) != 0 {
			t.Errorf("Close took %v", time.Since(before))
		}
		expect(t, s, password, "password-1", 2)
		wait(t, time.Hour)
		if got := password(); got != errClosed.Error() {
			t.Error(got)
		}
	})
}

func TestLoginThatHasEndedAlreadyIsNone(t *testing.T) {
	s := &scripted{answer: numbered(time.Second)}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		if got := password(); !strings.Contains(got, "has ended already") {
			t.Error(got)
		}
	})
}
