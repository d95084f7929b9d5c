package cache

import "time"

// Outcome is how a request was answered.
type Outcome uint8

const (
	Hit         Outcome = iota // from the cache, without asking upstream
	Stale                      // from the cache, because upstream fails or is slow
	Revalidated                // from the cache, after upstream said that it still holds
	Miss                       // from upstream
	Collapsed                  // from a transfer that somebody else had begun
)

// Outcomes are all of them.
var Outcomes = []Outcome{Hit, Stale, Revalidated, Miss, Collapsed}

// String is the outcome's name in logs and metrics.
func (o Outcome) String() string {
	return [...]string{"hit", "stale", "revalidated", "miss", "collapsed"}[o]
}

// Verdict says how a request was answered, and why.
type Verdict struct {
	Outcome Outcome
	Stored  bool          // what came from upstream is kept, or will be when it has all arrived
	Mutable bool          // the answer has an age: it is a tag's or a listing's
	Age     time.Duration // since upstream last said so
	TTL     time.Duration // until upstream is asked again; negative when that is overdue
	Cause   error         // of Stale: what upstream did
}
