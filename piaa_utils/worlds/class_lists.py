"""Class names in the order of the paper's experiments: the columns of all labels follow them."""

VOC_CLASSES = tuple(
    "aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, dining table, dog, horse, "
    "motorbike, person, potted plant, sheep, sofa, train, tv monitor".split(", ")
)

COCO_CLASSES = tuple(
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, "
    "fire hydrant, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, "
    "bear, zebra, giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, "
    "sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket, "
    "bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, "
    "carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, "
    "tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush".split(", ")
)

NUS_CLASSES = tuple(
    "airport, animal, beach, bear, birds, boats, book, bridge, buildings, cars, castle, cat, "
    "cityscape, clouds, computer, coral, cow, dancing, dog, earthquake, elk, fire, fish, flags, "
    "flowers, food, fox, frost, garden, glacier, grass, harbor, horses, house, lake, leaf, map, "
    "military, moon, mountain, nighttime, ocean, person, plane, plants, police, protest, "
    "railroad, rainbow, reflection, road, rocks, running, sand, sign, sky, snow, soccer, sports, "
    "statue, street, sun, sunset, surf, swimmers, tattoo, temple, tiger, tower, town, toy, train, "
    "tree, valley, vehicle, water, waterfall, wedding, whales, window, zebra".split(", ")
)
