package index

import "time"

// maxPublic is for how long it is remembered that a repository was public, since that was last looked at: for as long as an
// outage may last, or a machine be off.
const maxPublic = 90 * 24 * time.Hour

// Public returns when upstream was last seen to show part of a repository to everybody: its content, or its tags; ok is false if
// it was not, or did not last.
func (x *Index) Public(repo Repository, what string) (checked time.Time, ok bool) {
	ok = x.get(publicKey(repo, what), func(b []byte) (err error) {
		checked, err = decodePublic(b)
		return err
	})
	return checked, ok
}

// SetPublic records that upstream shows part of a repository to everybody.
func (x *Index) SetPublic(repo Repository, what string, checked time.Time) error {
	return x.set(publicKey(repo, what), appendTime([]byte{version}, checked))
}

// DeletePublic records that it does not any more.
func (x *Index) DeletePublic(repo Repository, what string) error {
	return x.remove(publicKey(repo, what))
}

func decodePublic(b []byte) (checked time.Time, err error) {
	d := decoder{rest: b}
	d.version()
	checked = d.time()
	return checked, d.done()
}

// Entrusted reports whether a registry was ever asked with more than nobody in particular has. That lasts as long as the index:
// no sweep forgets it.
func (x *Index) Entrusted(registry string) bool {
	return x.get(trustKey(registry), func([]byte) error { return nil })
}

// SetEntrusted records that it is.
func (x *Index) SetEntrusted(registry string) error {
	return x.set(trustKey(registry), []byte{version})
}
