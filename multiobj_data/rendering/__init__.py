"""Shaded pictures of simple bodies in a room, by exact ray casting in NumPy.

`world` says what there is (bodies, room, camera, light), `bodies` where a ray meets a body, `textures` what
floor and walls look like, `raycasting` puts it together. World axes: x and y lie in the floor, z points up.

Every scene is rendered on its own, in elementwise float32 arithmetic of correctly rounded operations (no
matrix products, no transcendental functions), so that its pixels depend neither on the batch nor on the machine.
"""
