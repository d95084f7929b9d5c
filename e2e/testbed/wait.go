package testbed

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

const (
	// pollEvery is short beside a process's start and long beside the cost of a look.
	pollEvery = 20 * time.Millisecond
	// readyWithin is ample for a daemon on a busy two-core machine, and the bound of every wait for readiness.
	readyWithin = 60 * time.Second
)

// Until asks ok again and again until it returns nil, and gives up after a minute or when ctx ends. It is the only
// place that polls: for other programs' readiness there is nothing else to wait on.
func Until(ctx context.Context, what string, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err // that the time is over says nothing of what was waited for
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %v)", what, context.Cause(ctx), last)
		case <-tick.C:
		}
	}
}

// answers returns a condition for Until: a GET of url gives one of the statuses.
func answers(url string, statuses ...int) func(context.Context) error {
	return answersOver(http.DefaultTransport, url, statuses...)
}

// answersOver is answers over a transport.
func answersOver(transport http.RoundTripper, url string, statuses ...int) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		resp.Body.Close()
		for _, s := range statuses {
			if resp.StatusCode == s {
				return nil
			}
		}
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
}
