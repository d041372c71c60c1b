package configs

// nearest returns the known key that a misspelt one probably stands for, or ""
// if none is near: at most a third of its letters may be wrong.
func nearest(key string, known []string) string {
	best, bound := "", len(key)/3+1
	for _, candidate := range known {
		if d := distance(key, candidate); d < bound {
			best, bound = candidate, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete or replace to turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of a[:i] to all prefixes of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
