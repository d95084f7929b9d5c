package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

var corpApp = Repository{Registry: "docker.io", Name: "corp/app"}

// judge is an upstream that says what it shows, and nothing else.
type judge struct {
	Upstream // none: content is not asked for

	mu sync.Mutex
	// guards following
	status int             // 0: shown
	size   int64           // stated of what is shown; 0: none is
	absent map[string]bool // resources that are not there
	asked  []string        // "resource as header"
	hold   chan struct{}   // answers wait for it, if there is one
}

func (j *judge) Shows(ctx context.Context, repository, resource, authorization string) (int64, error) {
	j.mu.Lock()
	j.asked = append(j.asked, resource+" as "+authorization)
	status, hold := j.status, j.hold
	if j.absent[resource] {
		status = 404
	}
	j.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return -1, ctx.Err()
		}
	}
	if status == 0 {
		return cmp.Or(j.size, -1), nil
	}
	e := &upstream.Error{Registry: "docker.io", Op: "HEAD " + resource, Status: status}
	if status < 0 {
		e.Status, e.Err = 0, errors.New("no answer")
	}
	return -1, e
}

func (j *judge) Down() bool      { return false }
func (j *judge) BlobsDown() bool { return false }

func (j *judge) says(status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.status = status
}

// takeAsked returns what was asked since it was last called.
func (j *judge) takeAsked() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	asked := strings.Join(j.asked, ", ")
	j.asked = nil
	return asked
}

// court is a cache before a judge, by a clock of the test's.
type court struct {
	*Cache
	t     *testing.T
	j     *judge
	opts  Options
	mu    sync.Mutex
	ahead time.Duration
}

func newCourt(t *testing.T) *court {
	c := &court{t: t, j: &judge{absent: map[string]bool{}}}
	c.opts = Options{DataDir: t.TempDir(), Upstreams: map[string]Upstream{"docker.io": c.j}, Now: c.now}
	c.open()
	t.Cleanup(c.close)
	return c
}

func (c *court) open() {
	opened, err := Open(c.t.Context(), c.opts)
	if err != nil {
		c.t.Fatal(err)
	}
	c.Cache = opened
}

func (c *court) close() {
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
}

func (c *court) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *court) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}

// expect asks, and looks at the verdict ("", the status of a refusal, or "unavailable") and at what upstream was asked for it.
func (c *court) expect(subject, header, verdict, asked string) {
	c.t.Helper()
	err := c.Admit(c.t.Context(), corpApp, subject, header)
	got := ""
	if e, ok := errors.AsType[*upstream.Error](err); ok {
		got = fmt.Sprint(e.Status)
	}
	if errors.Is(err, ErrUnavailable) {
		got = "unavailable"
	}
	if now := c.j.takeAsked(); got != verdict || now != asked || err != nil && got == "" {
		c.t.Errorf("%s as %q: %v after %q, want %q after %q", subject, header, err, now, verdict, asked)
	}
}
