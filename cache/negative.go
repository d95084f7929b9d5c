package cache

import (
	"container/list"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/entrepot/entrepot/upstream"
)

// maxAbsences bounds, in bytes, what is remembered as absent: some ten thousand things. Clients that make up names push out
// what others asked for, which is then asked again.
const maxAbsences = 4 << 20

// absenceCost is what one takes besides its strings.
const absenceCost = 512

// ErrRemembered is in an error of upstream's that was remembered, and not given just now.
var ErrRemembered = errors.New("upstream said so a moment ago")

// thing is what upstream may say that it has not: "manifests/", a tag or a digest; "blobs/" and a digest; or a listing.
type thing struct {
	repo    Repository
	subject string
}

func manifestThing(repo Repository, reference string) thing {
	return thing{repo, "manifests/" + reference}
}

func blobThing[D ~string](repo Repository, d D) thing { return thing{repo, "blobs/" + string(d)} }

// absences are what upstream has said that it has not, so that it is not asked again by everybody who looks for it. For how
// long that is believed is for who asks. They are in memory only. The zero value holds none.
type absences struct {
	mu sync.Mutex
	// guards following
	of    map[thing]*list.Element
	order list.List // of *absence; the latest last
	bytes int
}

type absence struct {
	thing thing
	err   error
	at    time.Time
	byGet time.Time // when it was last said to a GET; zero: never. Some registries refuse HEAD alone.
	cost  int
}

// isAbsence reports whether an error is upstream's word that the thing is not there.
func isAbsence(err error) bool {
	e, ok := errors.AsType[*upstream.Error](err)
	return ok && e.Answered() && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// note remembers that upstream said at a time that it has not got a thing.
func (a *absences) note(what thing, err error, at time.Time, head bool) {
	if errors.Is(err, ErrRemembered) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	byGet := at
	if head {
		byGet = time.Time{}
	}
	if e, ok := a.of[what]; ok {
		if head {
			byGet = e.Value.(*absence).byGet
		}
		a.dropLocked(e)
	}
	if a.of == nil {
		a.of = make(map[thing]*list.Element)
	}
	n := &absence{what, err, at, byGet, absenceCost + len(what.repo.Registry) + len(what.repo.Name) + len(what.subject) + len(err.Error())}
	a.of[what] = a.order.PushBack(n)
	a.bytes += n.cost
	for a.bytes > maxAbsences {
		a.dropLocked(a.order.Front())
	}
}

func (a *absences) dropLocked(e *list.Element) {
	gone := a.order.Remove(e).(*absence)
	delete(a.of, gone.thing)
	a.bytes -= gone.cost
}

// recall returns what upstream said of a thing that it had not got, if that was less than ttl before now; else nil. What it said
// to a HEAD is no answer to a GET. Where the clock was set back since, nobody knows how long ago it was.
func (a *absences) recall(what thing, now time.Time, ttl time.Duration, head bool) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.of[what]
	if !ok {
		return nil
	}
	n := e.Value.(*absence)
	at := n.at
	if !head {
		at = n.byGet
	}
	if age := now.Sub(at); age < 0 || age >= ttl {
		return nil
	}
	return remembered{n.err}
}

// forget is told of what was seen to be there.
func (a *absences) forget(seen ...thing) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, what := range seen {
		if e, ok := a.of[what]; ok {
			a.dropLocked(e)
		}
	}
}

// remembered is an error of an earlier request.
type remembered struct{ error }

func (r remembered) Unwrap() error { return r.error }

func (r remembered) Is(target error) bool { return target == ErrRemembered }
