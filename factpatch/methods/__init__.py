"""Editing methods: how the located parameters are trained. A package a method, beside what methods share."""
