"""Answers for analysts: the documented views of schema `analytics`, and questions asked of them."""
