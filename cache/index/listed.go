package index

import (
	"encoding/hex"
	"slices"

	"github.com/dgraph-io/badger/v4"
	"github.com/opencontainers/go-digest"
)

// List takes down which content came to be kept (true) and which went (false), so that after a restart what was lost can be told
// from what never was.
func (x *Index) List(changed map[digest.Digest]bool) error {
	all := make([]digest.Digest, 0, len(changed))
	for d := range changed {
		all = append(all, d)
	}
	for some := range slices.Chunk(all, batch) {
		var c cost
		for _, d := range some {
			c = c.plus(listedKey(d), nil)
		}
		err := x.write(c, func(db *badger.DB) error {
			return db.Update(func(txn *badger.Txn) (err error) {
				for _, d := range some {
					if changed[d] {
						err = txn.Set(listedKey(d), nil)
					} else {
						err = txn.Delete(listedKey(d))
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Listed reports whether content was kept, for all that was taken down.
func (x *Index) Listed(d digest.Digest) bool {
	return x.get(listedKey(d), func([]byte) error { return nil })
}

// listedKey has the digest's bytes in place of their text: there is such a record for all content.
func listedKey(d digest.Digest) []byte {
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		raw = []byte(d.Encoded())
	}
	return append(key(listedKind, d.Algorithm().String(), ""), raw...)
}

// listedDigest is the digest of such a key; it is not valid if the key is ill-formed.
func listedDigest(key []byte) digest.Digest {
	algorithm, raw, _ := cutKey(key[len(listedPrefix):])
	return digest.NewDigestFromBytes(digest.Algorithm(algorithm), raw)
}
