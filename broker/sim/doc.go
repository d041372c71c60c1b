// Package sim
package sim
