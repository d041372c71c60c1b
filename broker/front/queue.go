package front

// queue is first in, first out. It keeps no storage when it is empty.
type queue[T any] struct {
	items []T
	first int // index of the oldest
}

func (q *queue[T]) len() int { return len(q.items) - q.first }

func (q *queue[T]) push(v T) {
	if q.first > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, v)
}

// peek returns the oldest; ok is false if there is none.
func (q *queue[T]) peek() (v T, ok bool) {
	if q.len() == 0 {
		return v, false
	}
	return q.items[q.first], true
}

// pop takes the oldest out.
func (q *queue[T]) pop() (v T, ok bool) {
	if v, ok = q.peek(); !ok {
		return v, false
	}
	var none T
	q.items[q.first] = none
	if q.first++; q.first == len(q.items) {
		q.items, q.first = nil, 0
	}
	return v, true
}
