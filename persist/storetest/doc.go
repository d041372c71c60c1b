// Package storetest is the test suite of persist.Store: Run executes it over
// one implementation. There is a test for each sentence of the contract, a
// check against a model with random steps, and after each test the store is
// closed, opened again, and compared with what the model says must be in it.
package storetest
