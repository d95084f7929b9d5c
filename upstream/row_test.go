package upstream

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream/credential"
)

// TestWhoWaitsInTheRowIsHeldToo has a 429 come while others wait for the pace, and had been let pass.
func TestWhoWaitsInTheRowIsHeldToo(t *testing.T) {
	var until time.Time
	refused := 0
	limited(t, Options{Logins: asUser}, func(_, _ string, h http.Header) int {
		if time.Now().Before(until) {
			h.Set("Retry-After", "5")
			refused++
			return 429
		}
		return 200
	}, func(t *testing.T, r *Registry, l *limiting) {
		if err := getManifest(t.Context(), r); err != nil { // now its challenge is known
			t.Fatal(err)
		}
		until = time.Now().Add(time.Second)
		getManifest(Dispensable(t.Context()), r)
		pause(t.Context(), 5*time.Second)
		var row sync.WaitGroup
		for range 30 {
			row.Go(func() {
				if err := getManifest(t.Context(), r); err != nil {
					t.Error(err)
				}
			})
		}
		pause(t.Context(), 2500*time.Millisecond)
		l.mu.Lock()
		answered := len(l.asked)
		until, refused = time.Now().Add(5*time.Second), 0
		l.mu.Unlock()
		row.Wait()
		if answered > 25 || refused != 1 {
			t.Errorf("%d of 30 had been answered when the others were refused %d times", answered, refused)
		}
	})
}

// TestSpentLoginDoesNotStandInForOneThatIsHeld has one login with nothing left, and one with enough that is to wait a moment.
func TestSpentLoginDoesNotStandInForOneThatIsHeld(t *testing.T) {
	e := &endpoint{quotas: quotas{changed: make(chan struct{})}}
	spent, held := &account{endpoint: e, number: 1}, &account{endpoint: e, number: 2}
	spent.budget.settle(epoch, spent.budget.take(epoch, get), stated(100, 0))
	held.budget.settle(epoch, held.budget.take(epoch, get), stated(100, 50))
	held.budget.settle(epoch, held.budget.take(epoch, want{}), limits{came: true, throttled: true, retryAfter: 5 * time.Second})
	got, wait, changed, ok := e.quotas.try(epoch, []*account{spent, held}, get, tenth)
	if ok || got.account != held || wait != 5*time.Second {
		t.Errorf("%v as %d after %s", ok, got.account.number, wait)
	}
	r := &Registry{}
	r.settle(e, admitted{held, held.budget.take(epoch, want{})}, nil, context.Canceled)
	select {
	case <-changed:
	default:
		t.Error("who waits is not told that something has changed")
	}
}

// TestWhoLeavesTheRowGivesUpHisPlace has a crowd wait for the pace, and leave.
func TestWhoLeavesTheRowGivesUpHisPlace(t *testing.T) {
	var refuse bool
	limited(t, Options{Logins: asUser}, func(_, _ string, h http.Header) int {
		if refuse {
			refuse = false
			return 429
		}
		return 200
	}, func(t *testing.T, r *Registry, _ *limiting) {
		refuse = true
		if err := getManifest(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		ctx, leave := context.WithCancel(t.Context())
		var crowd sync.WaitGroup
		for range 80 {
			crowd.Go(func() { getManifest(ctx, r) })
		}
		synctest.Wait()
		leave()
		crowd.Wait()
		start := time.Now()
		if err := getManifest(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("waited %v behind nobody", took)
		}
	})
}

// TestOfflineNothingIsWaitedFor has a registry go offline that is held back by a limit.
func TestOfflineNothingIsWaitedFor(t *testing.T) {
	asked := 0
	source := counting{&asked}
	limited(t, Options{Logins: []credential.Source{source}}, func(_, _ string, h http.Header) int {
		h.Set("Retry-After", "15")
		return 429
	}, func(t *testing.T, r *Registry, _ *limiting) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		getManifest(ctx, r)
		r.SetOffline(true)
		asked = 0
		start := time.Now()
		if err := getManifest(t.Context(), r); !errors.Is(err, ErrOffline) || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		if asked != 0 {
			t.Error("a helper may have been run for it, which dials")
		}
	})
}

// counting is a source that counts how often it is asked.
type counting struct{ n *int }

func (c counting) Get(context.Context) (credential.Login, error) {
	*c.n++
	return user, nil
}

func (counting) Refused(credential.Login) {}
