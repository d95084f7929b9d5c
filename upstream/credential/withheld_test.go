package credential

import (
	"testing"
	"time"
)

// TestRefusalOfOneRequestHoldsUpNoOther has a registry refuse a login for one repository, which is good for all others, and a program
// that takes its time to be asked again.
func TestRefusalOfOneRequestHoldsUpNoOther(t *testing.T) {
	s := &scripted{answer: func(int) (found, error) {
		return lasting(Login{Username: "ci", Password: "same"}, time.Now(), time.Hour), nil
	}}
	in(t, s, func(t *testing.T, r *remembered, password func() string) {
		password()
		waited := time.Duration(0)
		s.takes = 25 * time.Second
		for begin := time.Now(); time.Since(begin) < 10*time.Minute; <-time.After(time.Second) {
			r.Refused(Login{Username: "ci", Password: "same"}) // for one repository
			start := time.Now()
			password() // for another
			waited += time.Since(start)
		}
		if waited > time.Minute {
			t.Errorf("who asks for other repositories has waited for %v of ten minutes, with a login at hand that was good for an hour", waited)
		}
	})
}
