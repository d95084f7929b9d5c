package bandwidth

import "context"

// Lines are lines one within the other, the narrowest first: what passes has been taken from each. Nil ones are unlimited.
type Lines []*Line

// Portion is how many bytes are best taken at a time.
func (ls Lines) Portion() int {
	n := maxPortion
	for _, l := range ls {
		n = min(n, l.Portion())
	}
	return n
}

// Take takes n bytes from each line on behalf of a flow, and waits until they have them. It fails with the cause of ctx when
// that ends first: then nothing was taken.
func (ls Lines) Take(ctx context.Context, of Flow, n int) error {
	for i, l := range ls {
		if err := l.Take(ctx, of, n); err != nil {
			for _, before := range ls[:i] {
				before.giveBack(n)
			}
			return err
		}
	}
	return nil
}

// Spend takes n bytes from each line without waiting for them.
func (ls Lines) Spend(n int) {
	for _, l := range ls {
		l.Spend(n)
	}
}
