package topic

// Set is a fixed set of filters. Its methods may be called by anybody.
type Set [][]byte

// NewSet makes a set of filters that have passed CheckFilter and are not those
// of shared subscriptions.
func NewSet(filters []string) (s Set) {
	for _, f := range filters {
		s = append(s, []byte(f))
	}
	return s
}

// Has tells whether a filter of the set matches a topic name. It takes time for
// each filter: the set is for a few.
func (s Set) Has(name []byte) bool {
	for _, f := range s {
		if matches(f, name) {
			return true
		}
	}
	return false
}
